"""Draw the model's boxes on the page, and crop its figures."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .boxes import Ref, crop_box
from .confidence import UNSURE

LABEL_LENGTH = 40  # characters; a label is model output and may be a whole page
DASH, HATCH = 8, 16  # pixels: half a period of a dashed outline, distance of the lines of a hatch

Sure = Sequence[Sequence[tuple[float | None, float | None]]]


def draw_overlay(image: Image.Image, refs: Sequence[Ref], sure: Sure | None = None) -> Image.Image:
    """A copy of the RGB page with every box: outline (4 px for "title", else 2), faint fill, label on white.

    The colour depends on the label only, so that a page always gives the same image (the original's is
    random).

    sure: the confidences of the boxes of each ref, from confidence.Scores.boxes. The value of the text then
    stands behind the label in percent; where it is below UNSURE, the outline is dashed and the box hatched.
    """
    page = image.convert("RGB")
    shade = Image.new("RGBA", page.size, (0, 0, 0, 0))
    on_page, on_shade, font = ImageDraw.Draw(page), ImageDraw.Draw(shade), ImageFont.load_default()
    marks = [
        (ref.label, crop_box(box, *page.size), sure[i][k][0] if sure else None)
        for i, ref in enumerate(refs)
        for k, box in enumerate(ref.boxes)
    ]
    for label, box, value in marks:
        colour, width = label_colour(label), 4 if label == "title" else 2
        on_shade.rectangle(box, fill=(*colour, 20))
        if value is not None and value < UNSURE:
            _dashes(on_page, box, colour, width)
            _hatch(on_shade, box, (*colour, 110))
        else:
            on_page.rectangle(box, outline=colour, width=width)
    page.paste(shade, (0, 0), shade)
    for label, (x1, y1, _, _), value in marks:  # last, so that no box covers a label
        caption, corner = _caption(label), (x1, max(0, y1 - 15))
        if value is not None:
            caption += f" {100 * value:.0f} %"
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


def _dashes(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour, width: int) -> None:
    x1, y1, x2, y2 = box
    for x in range(x1, x2 + 1, 2 * DASH):
        for y in (y1, max(y1, y2 - width + 1)):
            pen.rectangle((x, y, min(x + DASH - 1, x2), min(y + width - 1, y2)), fill=colour)
    for y in range(y1, y2 + 1, 2 * DASH):
        for x in (x1, max(x1, x2 - width + 1)):
            pen.rectangle((x, y, min(x + width - 1, x2), min(y + DASH - 1, y2)), fill=colour)


def _hatch(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], colour) -> None:
    """Lines from lower left to upper right, inside the box."""
    x1, y1, x2, y2 = box
    for total in range(x1 + y1 + HATCH, x2 + y2, HATCH):  # x + y of the line
        left, right = max(x1, total - y2), min(x2, total - y1)
        pen.line((left, total - left, right, total - right), fill=colour)


def _caption(label: str) -> str:
    text = " ".join(label.split())
    if len(text) > LABEL_LENGTH:
        text = text[: LABEL_LENGTH - 3] + "..."
    # The built-in font of Pillow has only Latin letters; without FreeType it raises for others.
    return text.encode("latin-1", "replace").decode("latin-1") or "?"
