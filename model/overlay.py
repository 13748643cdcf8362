"""Draw the model's boxes on the page, and crop its figures."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .boxes import Ref, crop_box

LABEL_LENGTH = 40  # characters; a label is model output and may be a whole page


def draw_overlay(image: Image.Image, refs: Sequence[Ref]) -> Image.Image:
    """A copy of the RGB page with every box: outline (4 px for "title", else 2), faint fill, label on white.

    The colour depends on the label only, so that a page always gives the same image (the original's is
    random).
    """
    page = image.convert("RGB")
    shade = Image.new("RGBA", page.size, (0, 0, 0, 0))
    on_page, on_shade, font = ImageDraw.Draw(page), ImageDraw.Draw(shade), ImageFont.load_default()
    marks = [(ref.label, crop_box(box, *page.size)) for ref in refs for box in ref.boxes]
    for label, box in marks:
        colour = label_colour(label)
        on_page.rectangle(box, outline=colour, width=4 if label == "title" else 2)
        on_shade.rectangle(box, fill=(*colour, 20))
    page.paste(shade, (0, 0), shade)
    for label, (x1, y1, _, _) in marks:  # last, so that no box covers a label
        caption, corner = _caption(label), (x1, max(0, y1 - 15))
        on_page.rectangle(on_page.textbbox(corner, caption, font=font), fill=(255, 255, 255))
        on_page.text(corner, caption, font=font, fill=label_colour(label))
    return page


def crops(image: Image.Image, refs: Sequence[Ref]) -> list[Image.Image]:
    """The figures of a page: one image per box of every ref labelled "image", in the order of the text."""
    return [image.crop(crop_box(box, *image.size)) for ref in refs if ref.is_image for box in ref.boxes]


def label_colour(label: str) -> tuple[int, int, int]:
    """A colour for a label, dark enough on white paper."""
    code = zlib.crc32(label.encode("utf-8", "replace"))
    return (code & 0xFF) % 200, (code >> 8 & 0xFF) % 200, code >> 16 & 0xFF


def _caption(label: str) -> str:
    text = " ".join(label.split())
    if len(text) > LABEL_LENGTH:
        text = text[: LABEL_LENGTH - 3] + "..."
    # The built-in font of Pillow has only Latin letters; without FreeType it raises for others.
    return text.encode("latin-1", "replace").decode("latin-1") or "?"
