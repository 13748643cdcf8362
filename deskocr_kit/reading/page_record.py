"""One page read -> one plain record: what `deskocr ocr --json` prints and result.json holds."""

from __future__ import annotations

from pathlib import Path

from model.results import parse_boxes, to_pixels_box

from ..device.dtypes import dtype_name
from .options import PageOptions


def page_record(page, reading, reader, options: PageOptions) -> dict:
    """file, page, text, boxes (pixels and 0..999), tokens, seconds, how it was read; or file, page, error."""
    record = {"file": page.file, "page": page.number}
    if reading is None:
        return {**record, "error": str(page.error)}
    width, height = page.image.size
    boxes = [
        {
            "label": ref.label,
            "box": list(to_pixels_box(box, width, height)),
            "box_999": list(box),
        }
        for ref in parse_boxes(reading.text)
        for box in ref.boxes
    ]
    return {
        **record,
        "text": reading.text,
        "boxes": boxes,
        "tokens": len(reading.ids),
        "prompt_tokens": reading.prompt_tokens,
        "image_tokens": reading.image_tokens,
        "truncated": reading.truncated,
        "seconds": round(reading.seconds, 3),
        "size": [width, height],
        "notes": page.notes,
        "prompt": options.prompt,
        "mode": options.mode or reader.settings["mode"],
        "model": reader.name,
        "device": str(reader.model.device),
        "dtype": dtype_name(reader.model.dtype),
        "weights": reader.options.weights,
    }


def output_folder(out: Path, page, taken: set[str]) -> Path:
    """A folder under `out` named after the file (and page, from the second on), never one in `taken`.

    `taken` holds names in lower case: some disks do not tell A from a.
    """
    stem = Path(page.file).stem
    stem = stem if stem.strip(". ") else "page"  # ".." would lead out of the folder
    name = stem if page.number == 1 else f"{stem}-p{page.number}"
    base, i = name, 1
    while name.lower() in taken:
        i += 1
        name = f"{base}-{i}"
    taken.add(name.lower())
    return out / name
