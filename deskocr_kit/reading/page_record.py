"""The record of a page as plain data: `deskocr ocr --json` prints it, result.json stores it."""

from __future__ import annotations

from pathlib import Path

from model.confidence import rounded
from model.results import cell_confidences, to_pixels_box, what_is_cut
from model.untrusted import shown

from ..device.messages import message
from .options import PageOptions


def page_record(page, reading, reader, options: PageOptions) -> dict:
    """file, page, text, boxes (pixels and 0..999), tokens, seconds, how it was read; or file, page, error.

    Confidences: of the page, its lines and tokens, each box (its text, its place) and each table cell, see
    model/confidence.py. warnings: reasons not to trust the text, see doubt.py. cut: what the bounds on boxes,
    figures and tables left out, see docs/security.md.
    """
    record = {"file": page.file, "page": page.number}
    if reading is None:
        return {**record, "error": str(page.error)}
    width, height = page.image.size
    scores = reading.scores
    boxes = [
        {
            "label": ref.label,
            "box": list(to_pixels_box(box, width, height)),
            "box_999": list(box),
            "confidence": rounded(text),
            "place_confidence": rounded(place),
        }
        for ref, sure in zip(scores.refs, scores.boxes(), strict=True)
        for box, (text, place) in zip(ref.boxes, sure, strict=True)
    ]
    return {
        **record,
        "text": reading.text,
        "boxes": boxes,
        "tokens": reading.new_tokens,
        "prompt_tokens": reading.prompt_tokens,
        "image_tokens": reading.image_tokens,
        "truncated": reading.truncated,
        "seconds": round(reading.seconds, 3),
        "size": [width, height],
        "notes": page.notes,
        "warnings": reader.doubts(page.image, reading, options=options),
        "prompt": options.prompt,
        "mode": options.mode or reader.settings["mode"],
        "model": reader.name,
        **reader.origin(reading),
        **scores.record(),
        "table_confidences": cell_confidences(scores),
        "cut": what_is_cut(reading.text),
    }


def failure(page, error: Exception) -> str:
    """Why a page failed, in one line with its file and number."""
    if isinstance(error, MemoryError):
        what = "not enough memory"
    else:
        what = message(error).removeprefix("error: ").split("\n")[0] or type(error).__name__
    return what if page.file in what else f"{page.file} page {page.number}: {what}"


def explanation(error: Exception) -> str:
    """What is known about an error of the device: cause and remedy. "" for other errors."""
    return message(error).partition("\n")[2]


def cut_lines(page, cut: list[str]) -> list[str]:
    """What was cut of a page, for the screen."""
    return [f"cut: {shown(page.file)} page {page.number}: {line}" for line in cut]


def output_folder(out: Path, page, taken: set[str]) -> Path:
    """A folder under `out` named after the file (and page, from the second on), never one in `taken`.

    Never a link either: results are not written elsewhere. `taken` holds names in lower case, because some
    file systems do not distinguish A from a.
    """
    stem = Path(page.file).stem
    stem = stem if stem.strip(". ") else "page"  # ".." would be outside the folder
    name = stem if page.number == 1 else f"{stem}-p{page.number}"
    base, i = name, 1
    while name.lower() in taken or (out / name).is_symlink():
        i += 1
        name = f"{base}-{i}"
    taken.add(name.lower())
    return out / name
