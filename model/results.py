"""Convert the model's text to markdown, figures, tables, boxes on the page, and JSON.

The text is treated as data. Nothing in it is evaluated, and file names are numbers, never part of the text.
Uses boxes.py (parse the grounding), overlay.py (draw and crop) and tables.py (parse tables).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .boxes import Ref, crop_box, parse_boxes, to_pixels_box
from .confidence import Scores, rounded
from .files import write_atomically, write_json
from .overlay import crops, draw_overlay, label_colour
from .tables import csv_safe, located_tables, tables, to_csv

__all__ = [
    "EOS",
    "Ref",
    "cell_confidences",
    "clean_text",
    "crop_box",
    "crops",
    "csv_safe",
    "draw_overlay",
    "label_colour",
    "parse_boxes",
    "tables",
    "to_csv",
    "to_markdown",
    "to_pixels_box",
    "write_results",
]

EOS = "<｜end▁of▁sentence｜>"
_OUR_FILES = re.compile(r"(images/\d{1,6}\.jpg|tables/\d{1,6}\.csv|result_with_boxes\.jpg)")


def clean_text(text: str, eos: str = EOS) -> str:
    """The decoded text without end token and surrounding space, as the original returns in eval_mode."""
    return text.removesuffix(eos).strip() if eos else text.strip()


def to_markdown(text: str, refs: Sequence[Ref] | None = None, folder: str = "images") -> str:
    """The text without grounding and with figures: the content of result.mmd.

    Each box of a ref labelled "image" becomes a line `![](images/k.jpg)`, where k counts boxes as `crops`
    does, so that line k shows crop k. (The original numbers crops per box but lines per ref, so they differ
    after the first ref with two boxes.) All other refs are removed. `\\coloneqq` and `\\eqqcolon` become :=
    and =: always (in the original only if another ref was found).

    refs: the refs of exactly this text; by default parse_boxes(text).
    """
    return _markdown(text, parse_boxes(text) if refs is None else refs, folder)[0]


def cell_confidences(scores: Scores) -> list[list[list[float | None]]]:
    """The confidence of each table cell, in the shape of result.json's "tables"; None for an empty cell."""
    markdown, origins = _markdown(scores.text, scores.refs)
    origins.append(len(scores.text))

    def of(cell) -> float | None:
        if not cell.text:
            return None
        start, end = cell.span
        return rounded(scores.over((origins[start], origins[end - 1] + 1)))

    return [[[of(cell) for cell in row] for row in table] for table in located_tables(markdown)]


def _markdown(text: str, refs: Sequence[Ref], folder: str = "images") -> tuple[str, list[int]]:
    """The markdown, and for each of its characters the position in `text` that it comes from."""
    pieces: list[str] = []
    origins: list[int] = []
    position, k = 0, 0
    for ref in refs:
        pieces.append(text[position : ref.span[0]])
        origins += range(position, ref.span[0])
        if ref.is_image:
            lines = "".join(f"![]({folder}/{k + i}.jpg)\n" for i in range(len(ref.boxes)))
            pieces.append(lines)
            origins += [ref.span[0]] * len(lines)
            k += len(ref.boxes)
        position = ref.span[1]
    pieces.append(text[position:])
    origins += range(position, len(text))
    markdown = "".join(pieces)
    for command, sign in (("\\coloneqq", ":="), ("\\eqqcolon", "=:")):
        found = [match.start() for match in re.finditer(re.escape(command), markdown)]
        for at in reversed(found):
            del origins[at + len(sign) : at + len(command)]
        markdown = markdown.replace(command, sign)
    return markdown, origins


def write_results(
    folder: str | os.PathLike,
    image: Image.Image | None,
    text: str,
    *,
    overlay: bool = True,
    extra: dict | None = None,
    scores: Scores | None = None,
) -> dict:
    """Write the results of one page to `folder` (created if missing); return the content of result.json.

    Writes result.mmd, result_with_boxes.jpg (if overlay), images/k.jpg, tables/k.csv and result.json. Each
    file is written atomically, result.json last, so that its presence means a complete page. Crops and tables
    of an earlier run that this run does not have are removed.

    Args:
        image: the upright RGB page (see `load_image`). None: there is nothing to draw on or to crop, and
            figures have no lines in the markdown.
        extra: further entries of result.json (tokens, seconds, …); the entries of this function take
            precedence.
        scores: of this text; result.json and the boxes on the page then hold confidences, see confidence.py.

    Raises:
        OSError: a file cannot be written.
        ValueError: the scores are of another text.
    """
    folder = Path(folder)
    text = clean_text(text)
    if scores is not None and scores.text != text:
        raise ValueError("write_results: the scores are of another text")
    refs = parse_boxes(text)
    sure = scores.boxes() if scores else None
    found = tables(to_markdown(text, refs))
    files: dict[str, bytes] = {}
    shown = refs
    if image is None:
        shown = [Ref(r.label, [], r.span, r.raw, r.problems) for r in refs]
    else:
        files |= {f"images/{k}.jpg": _jpeg(crop) for k, crop in enumerate(crops(image, refs))}
        if overlay:
            files["result_with_boxes.jpg"] = _jpeg(draw_overlay(image, refs, sure))
    files |= {f"tables/{k}.csv": to_csv(table).encode("utf-8", "replace") for k, table in enumerate(found)}
    markdown = to_markdown(text, shown)
    files["result.mmd"] = markdown.encode("utf-8", "replace")
    result = {
        **(extra or {}),
        "text": text,
        "markdown": markdown,
        "image_size": list(image.size) if image else None,
        "refs": [_ref_entry(ref, image, sure[i] if sure else None) for i, ref in enumerate(refs)],
        "tables": found,
        **(scores.record() | {"table_confidences": cell_confidences(scores)} if scores else {}),
        # The original evaluates and plots such output; here it remains text.
        "geometry": text if "line_type" in text else None,
        "files": sorted(files),
    }
    (folder / "images").mkdir(parents=True, exist_ok=True)
    earlier = _files_of_last_run(folder)
    with contextlib.suppress(FileNotFoundError):  # until the end the page is incomplete
        (folder / "result.json").unlink()
    for name in earlier - files.keys():
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_json(folder / "result.json", result)
    return result


def _ref_entry(ref: Ref, image: Image.Image | None, sure: list | None) -> dict:
    entry: dict = {"label": ref.label, "boxes": [list(box) for box in ref.boxes], "problems": ref.problems}
    if sure is not None:
        entry["confidences"] = [rounded(text) for text, _ in sure]
        entry["place_confidences"] = [rounded(place) for _, place in sure]
    if image is not None:
        entry["pixels"] = [list(to_pixels_box(box, *image.size)) for box in ref.boxes]
    return entry


def _files_of_last_run(folder: Path) -> set[str]:
    """The files listed in an earlier result.json, restricted to the names that this module uses."""
    try:
        names = json.loads((folder / "result.json").read_text(encoding="utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and _OUR_FILES.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()
