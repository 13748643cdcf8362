"""The model's text -> what a reader wants: markdown, figures, tables, boxes on the page, JSON.

The text is data. Nothing in it is evaluated, and no file name comes from it: files are numbered.
The rooms behind it: boxes.py reads the grounding, overlay.py draws and cuts, tables.py reads tables.
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

from model.boxes import Ref, crop_box, parse_boxes, to_pixels_box
from model.files import write_atomically, write_json
from model.overlay import crops, draw_overlay, label_colour
from model.tables import csv_safe, tables, to_csv

__all__ = [
    "EOS",
    "Ref",
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
    """Decoded text without the end token and the space around it: what the original returns in eval_mode."""
    return text.removesuffix(eos).strip() if eos else text.strip()


def to_markdown(text: str, refs: Sequence[Ref] | None = None, folder: str = "images") -> str:
    """The text with grounding taken out and figures put in: the content of result.mmd.

    Each box of a ref labelled "image" becomes a line `![](images/k.jpg)`, k counting boxes, which is how
    `crops` counts: line k always shows crop k. (The original numbers crops per box but lines per ref, so
    they part at the first ref with two boxes.) All other refs are removed. `\\coloneqq` and `\\eqqcolon`
    become := and =: always (in the original only if some other ref was found). refs: of exactly this text;
    default parse_boxes(text).
    """
    pieces, position, k = [], 0, 0
    for ref in parse_boxes(text) if refs is None else refs:
        pieces.append(text[position : ref.span[0]])
        if ref.is_image:
            pieces += [f"![]({folder}/{k + i}.jpg)\n" for i in range(len(ref.boxes))]
            k += len(ref.boxes)
        position = ref.span[1]
    pieces.append(text[position:])
    return "".join(pieces).replace("\\coloneqq", ":=").replace("\\eqqcolon", "=:")


def write_results(
    folder: str | os.PathLike,
    image: Image.Image | None,
    text: str,
    *,
    overlay: bool = True,
    extra: dict | None = None,
) -> dict:
    """Write one page's results into `folder` (made if missing) and return what result.json holds.

    result.mmd, result_with_boxes.jpg (if overlay), images/k.jpg, tables/k.csv, result.json. image: the
    upright RGB page (`load_image`), or None for text-only output: then there is no picture to draw on or
    cut from, and figures have no lines in the markdown. extra: more entries for result.json (tokens,
    seconds ...); ours win on a clash. Each file appears whole or not at all, result.json last, so its
    presence says that the page is complete. Crops and tables that an earlier run left here and this one
    does not have are removed. Raises OSError if it cannot write.
    """
    folder = Path(folder)
    text = clean_text(text)
    refs = parse_boxes(text)
    found = tables(to_markdown(text, refs))
    files: dict[str, bytes] = {}
    shown = refs
    if image is None:
        shown = [Ref(r.label, [], r.span, r.raw, r.problems) for r in refs]
    else:
        files |= {f"images/{k}.jpg": _jpeg(crop) for k, crop in enumerate(crops(image, refs))}
        if overlay:
            files["result_with_boxes.jpg"] = _jpeg(draw_overlay(image, refs))
    files |= {f"tables/{k}.csv": to_csv(table).encode("utf-8", "replace") for k, table in enumerate(found)}
    markdown = to_markdown(text, shown)
    files["result.mmd"] = markdown.encode("utf-8", "replace")
    result = {
        **(extra or {}),
        "text": text,
        "markdown": markdown,
        "image_size": list(image.size) if image else None,
        "refs": [_ref_entry(ref, image) for ref in refs],
        "tables": found,
        # The original evaluates such output and plots it; here it stays text.
        "geometry": text if "line_type" in text else None,
        "files": sorted(files),
    }
    (folder / "images").mkdir(parents=True, exist_ok=True)
    earlier = _files_of_last_run(folder)
    with contextlib.suppress(FileNotFoundError):  # from here until the end the page counts as unfinished
        (folder / "result.json").unlink()
    for name in earlier - files.keys():
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    for name, content in files.items():
        write_atomically(folder / name, content)
    write_json(folder / "result.json", result)
    return result


def _ref_entry(ref: Ref, image: Image.Image | None) -> dict:
    entry = {"label": ref.label, "boxes": [list(box) for box in ref.boxes], "problems": ref.problems}
    if image is not None:
        entry["pixels"] = [list(to_pixels_box(box, *image.size)) for box in ref.boxes]
    return entry


def _files_of_last_run(folder: Path) -> set[str]:
    """What an earlier result.json says it wrote; only names of the kind we give, whatever it contains."""
    try:
        names = json.loads((folder / "result.json").read_text(encoding="utf-8"))["files"]
        return {name for name in names if isinstance(name, str) and _OUR_FILES.fullmatch(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=95)
    return file.getvalue()
