"""Convert the model's text to markdown, figures, tables, boxes on the page, and JSON.

The text is treated as data. Nothing in it is evaluated, and file names are numbers, never part of the text.
Uses boxes.py (parse the grounding), overlay.py (draw and crop) and tables.py (parse tables).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from PIL import Image

from .boxes import Ref, crop_box, left_out, parse_boxes, to_pixels_box
from .confidence import Scores, rounded
from .files import refuse_link, write_atomically, write_json
from .overlay import (
    MAX_FIGURES,
    Box,
    crops,
    draw_overlay,
    figure_boxes,
    figure_numbers,
    label_colour,
    marks,
    reduced,
)
from .safe_markdown import safe_markdown
from .tables import csv_safe, find_tables, located_tables, tables, to_csv
from .untrusted import UntrustedFile, read_json_object

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
    "what_is_cut",
    "write_results",
]

# Bounds of a page, see docs/security.md. The official model writes at most 8192 tokens, some 40,000
# characters.
MAX_TEXT = 500_000  # characters; a longer text is cut
MAX_OVERLAY = 14_000_000  # bytes of result_with_boxes.jpg; a larger one is made again with fewer pixels
MAX_CROPS = 12_000_000  # bytes of all figures together; those beyond are left out
RESULT_BYTES = 64 << 20  # of a result.json that is read

EOS = "<｜end▁of▁sentence｜>"
_OF_THE_WHOLE_TEXT = ("boxes", "lines", "token_confidences", "token_spans", "table_confidences")
_OUR_FILES = re.compile(r"(images/\d{1,6}\.jpg|tables/\d{1,6}\.csv|result_with_boxes\.jpg)")


def clean_text(text: str, eos: str = EOS) -> str:
    """The decoded text without end token and surrounding space, as the original returns in eval_mode."""
    return text.removesuffix(eos).strip() if eos else text.strip()


def to_markdown(text: str, refs: Sequence[Ref] | None = None, folder: str = "images") -> str:
    """The text without grounding and with figures, safe to show: the content of result.mmd.

    Each box of a ref labelled "image" becomes a line `![](images/k.jpg)`, where k counts different boxes, so
    that such a line shows file k. (The original numbers crops per box but lines per ref, so they differ
    after the first ref with two boxes.) All other refs are removed. `\\coloneqq` and `\\eqqcolon` become :=
    and =: always (in the original only if another ref was found). Raw HTML other than tables and simple
    formatting, and links that run code, become plain text, see safe_markdown.py.

    refs: the refs of exactly this text; by default parse_boxes(text).
    """
    return safe_markdown(_markdown(text, parse_boxes(text) if refs is None else refs, folder)[0], folder)


def cell_confidences(scores: Scores) -> list[list[list[float | None]]]:
    """The confidence of each table cell, in the shape of result.json's "tables"; None for an empty cell."""
    markdown, origins = _markdown(scores.text, scores.refs)
    origins.append(len(scores.text))

    known: dict[tuple[int, int], float | None] = {}  # a cell with spans is repeated

    def of(cell) -> float | None:
        if not cell.text:
            return None
        if cell.span not in known:
            start, end = cell.span
            known[cell.span] = rounded(scores.over((origins[start], origins[end - 1] + 1)))
        return known[cell.span]

    return [[[of(cell) for cell in row] for row in table] for table in located_tables(markdown)]


def what_is_cut(text: str) -> list[str]:
    """What the bounds on boxes, figures and tables leave out of this text, one line each ([]: nothing)."""
    refs = parse_boxes(text)
    figures = len({number for numbers in figure_numbers(refs) for number in numbers})
    lines = left_out(refs) + find_tables(_markdown(text, refs)[0])[1]
    if figures > MAX_FIGURES:
        lines.append(f"{figures - MAX_FIGURES:,} figures were left out: more than {MAX_FIGURES} on the page")
    return lines


def _markdown(
    text: str, refs: Sequence[Ref], folder: str = "images", kept: Collection[int] | None = None
) -> tuple[str, list[int]]:
    """The markdown, and for each of its characters the position in `text` that it comes from.

    kept: the numbers of the figures that get lines; None: the first MAX_FIGURES.
    """
    pieces: list[str] = []
    origins: list[int] = []
    position = 0
    for ref, numbers in zip(refs, figure_numbers(refs), strict=True):
        pieces.append(text[position : ref.span[0]])
        origins += range(position, ref.span[0])
        for k in numbers:
            if k < MAX_FIGURES if kept is None else k in kept:
                line = f"![]({folder}/{k}.jpg)\n"
                pieces.append(line)
                origins += [ref.span[0]] * len(line)
        position = ref.span[1]
    pieces.append(text[position:])
    origins += range(position, len(text))
    markdown = "".join(pieces)
    for command, sign in (("\\coloneqq", ":="), ("\\eqqcolon", "=:")):
        parts = markdown.split(command)
        if len(parts) == 1:
            continue
        chosen, at = [], 0
        for part in parts:
            chosen += origins[at : at + len(part) + len(sign)]  # the sign comes from the first characters
            at += len(part) + len(command)
        markdown = sign.join(parts)
        origins = chosen[: len(markdown)]
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

    A text of a model in a loop cannot fill the memory or the disk: result.json names what was left out in
    "cut", a list of lines, empty as a rule.

    Args:
        image: the upright RGB page (see `load_image`). None: there is nothing to draw on or to crop, and
            figures have no lines in the markdown.
        extra: further entries of result.json (tokens, seconds, …); the entries of this function take
            precedence.
        scores: of this text; result.json and the boxes on the page then hold confidences, see confidence.py.

    Raises:
        OSError: a file cannot be written, or a folder for results is a link.
        ValueError: the scores are of another text.
    """
    folder = Path(folder)
    text = clean_text(text)
    if scores is not None and scores.text != text:
        raise ValueError("write_results: the scores are of another text")
    cut = []
    if len(text) > MAX_TEXT:
        cut.append(f"{len(text) - MAX_TEXT:,} characters of the text, and all confidences: a page has more "
                   f"than {MAX_TEXT:,}")  # fmt: skip
        text, scores = text[:MAX_TEXT], None
        extra = {name: value for name, value in (extra or {}).items() if name not in _OF_THE_WHOLE_TEXT}
    refs = parse_boxes(text)
    sure = scores.boxes() if scores else None
    cut += what_is_cut(text)
    found = tables(_markdown(text, refs)[0])

    for name in ("images", "tables"):
        refuse_link(folder / name)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    earlier = _files_of_last_run(folder)
    with contextlib.suppress(FileNotFoundError):  # until the end the page is incomplete
        (folder / "result.json").unlink()
    files: set[str] = set()
    figures: set[int] = set()

    def write(name: str, content: bytes) -> None:
        write_atomically(folder / name, content)
        files.add(name)

    if image is not None:
        for number, content in _figures(image, refs, cut):
            write(f"images/{number}.jpg", content)
            figures.add(number)
        if overlay:
            write("result_with_boxes.jpg", _overlay(image, refs, sure, cut))
    for k, table in enumerate(found):
        write(f"tables/{k}.csv", to_csv(table).encode("utf-8", "replace"))
    markdown = safe_markdown(_markdown(text, refs, kept=figures)[0])
    write("result.mmd", markdown.encode("utf-8", "replace"))
    for name in earlier - files:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
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
        "cut": cut,
    }
    write_json(folder / "result.json", result)
    return result


def _figures(image: Image.Image, refs: Sequence[Ref], cut: list[str]) -> Iterator[tuple[int, bytes]]:
    """(number, JPEG) of the figures of a page, one by one; what is left out is added to `cut`."""
    boxes: dict[int, Box] = figure_boxes(refs, *image.size)
    over = len({k for numbers in figure_numbers(refs) for k in numbers if k < MAX_FIGURES}) - len(boxes)
    if over > 0:
        cut.append(f"{over:,} figures were left out: together they are larger than two pages")
    left, reduced_ones = MAX_CROPS, 0
    for place, (number, box) in enumerate(boxes.items()):
        picture = reduced(image, box)
        reduced_ones += picture.size != (box[2] - box[0], box[3] - box[1])
        content = _jpeg(picture)
        if len(content) > left:
            cut.append(f"{len(boxes) - place:,} figures were left out: more than {MAX_CROPS:,} bytes")
            break
        left -= len(content)
        yield number, content
    if reduced_ones:
        cut.append(f"{reduced_ones:,} figures were reduced: they have too many pixels")


def _overlay(image: Image.Image, refs: Sequence[Ref], sure: list | None, cut: list[str]) -> bytes:
    """The page with its boxes as JPEG, smaller if it is too large; what is left out is added to `cut`."""
    page = reduced(image)
    drawn = draw_overlay(page, refs, sure)
    size = drawn.size
    if over := marks(refs, page.size, sure)[1]:
        cut.append(f"result_with_boxes.jpg: {over:,} boxes were not drawn, there are too many")
    content = _jpeg(drawn)
    while len(content) > MAX_OVERLAY:
        drawn = drawn.reduce(2)
        content = _jpeg(drawn)
    if drawn.size != image.size:
        why = "pixels" if size != image.size else "bytes"
        width, height = drawn.size
        cut.append(f"result_with_boxes.jpg: reduced to {width}x{height}, the page has too many {why}")
    return content


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
        names = read_json_object(folder / "result.json", RESULT_BYTES)["files"]
        return {name for name in names if isinstance(name, str) and _OUR_FILES.fullmatch(name)}
    except (OSError, UntrustedFile, KeyError, TypeError):
        return set()


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image = image if image.mode == "RGB" else image.convert("RGB")
    image.save(file, "JPEG", quality=95)
    return file.getvalue()
