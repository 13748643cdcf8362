"""Draw the model's boxes on the page, and crop its figures, within bounds on time, memory and disk."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from .boxes import Ref, crop_box
from .confidence import UNSURE

LABEL_LENGTH = 40  # characters; a label is model output and may be a whole page
DASH, HATCH = 8, 16  # pixels: half a period of a dashed outline, distance of the lines of a hatch

# Bounds for what a model in a loop writes. A page of the official model has at most some hundred boxes.
MAX_MARKS = 1000  # boxes drawn on a page
MAX_FIGURES = 100  # figures cut out of a page
MAX_PIXELS = 36_000_000  # of one picture that is made; A4 at 600 dpi has 35 million
BAND = 8_000_000  # pixels that are shaded at a time, 4 bytes each

Sure = Sequence[Sequence[tuple[float | None, float | None]]]
Box = tuple[int, int, int, int]


class Mark(NamedTuple):
    """A box to draw: its label, its pixels, and the confidence of its text."""

    label: str
    box: Box
    value: float | None


def marks(refs: Sequence[Ref], size: tuple[int, int], sure: Sure | None = None) -> tuple[list[Mark], int]:
    """(the boxes to draw on a page of `size`, the number of boxes left out).

    A box that is there already, with the same label and confidence, is drawn once and not counted. Left out
    is what is beyond MAX_MARKS boxes, and beyond 40 times the area of the page (3 times, or 150 million
    pixels, of a large page): each pixel takes time.
    """
    width, height = size
    room = min(40 * width * height, max(3 * width * height, 150_000_000)) + MAX_MARKS * DASH * DASH
    chosen: dict[Mark, None] = {}  # a set that keeps the order
    over = 0
    for i, ref in enumerate(refs):
        for k, box in enumerate(ref.boxes):
            mark = Mark(ref.label, crop_box(box, width, height), sure[i][k][0] if sure else None)
            if mark in chosen:
                continue
            x1, y1, x2, y2 = mark.box
            area = (x2 - x1 + DASH) * (y2 - y1 + DASH)
            if len(chosen) == MAX_MARKS or area > room:
                over += 1
                continue
            room -= area
            chosen[mark] = None
    return list(chosen), over


def draw_overlay(image: Image.Image, refs: Sequence[Ref], sure: Sure | None = None) -> Image.Image:
    """A copy of the RGB page with its boxes: outline (4 px for "title", else 2), faint fill, label on white.

    The colour depends on the label only, so that a page always gives the same image (the original's is
    random). `marks` states which boxes of a long text are left out.

    sure: the confidences of the boxes of each ref, from confidence.Scores.boxes. The value of the text then
    stands behind the label in percent; where it is below UNSURE, the outline is dashed and the box hatched.
    """
    page = image.convert("RGB")
    on_page, font = ImageDraw.Draw(page), ImageFont.load_default()
    drawn = marks(refs, page.size, sure)[0]
    for label, box, value in drawn:
        colour, width = label_colour(label), 4 if label == "title" else 2
        if value is not None and value < UNSURE:
            _dashes(on_page, box, colour, width)
        else:
            on_page.rectangle(box, outline=colour, width=width)
    rows = max(1, BAND // page.width)
    for top in range(0, page.height, rows):
        shade = _shade(drawn, page.width, top, min(top + rows, page.height))
        page.paste(shade, (0, top), shade)
    for label, (x1, y1, _, _), value in drawn:  # last, so that no box covers a label
        caption, corner = _caption(label), (x1, max(0, y1 - 15))
        if value is not None:
            caption += f" {100 * value:.0f} %"
        on_page.rectangle(on_page.textbbox(corner, caption, font=font), fill=(255, 255, 255))
        on_page.text(corner, caption, font=font, fill=label_colour(label))
    return page


def _shade(drawn: Sequence[Mark], width: int, top: int, bottom: int) -> Image.Image:
    """The fill of all boxes, RGBA, for the rows from `top` to `bottom` of the page."""
    shade = Image.new("RGBA", (width, bottom - top), (0, 0, 0, 0))
    pen = ImageDraw.Draw(shade)
    for label, (x1, y1, x2, y2), value in drawn:
        if y1 >= bottom or y2 < top:
            continue
        box, colour = (x1, y1 - top, x2, y2 - top), label_colour(label)
        pen.rectangle(box, fill=(*colour, 20))
        if value is not None and value < UNSURE:
            _hatch(pen, box, (*colour, 110))
    return shade


def figure_numbers(refs: Sequence[Ref]) -> list[list[int]]:
    """For each ref, the number of the figure that each of its boxes shows; [] if its label is not "image".

    Numbers count different boxes in the order of the text: a model in a loop frames one figure many times.
    """
    numbers: dict[tuple, int] = {}
    return [
        [numbers.setdefault(box, len(numbers)) for box in ref.boxes] if ref.is_image else [] for ref in refs
    ]


def figure_boxes(refs: Sequence[Ref], width: int, height: int) -> dict[int, Box]:
    """{number: pixels} of the figures of a page that are cut out, see `figure_numbers`.

    The first MAX_FIGURES, with at most twice the area of the page (or 32 million pixels) together.
    """
    found = {
        number: crop_box(box, width, height)
        for ref, numbers in zip(refs, figure_numbers(refs), strict=True)
        for box, number in zip(ref.boxes, numbers, strict=False)  # no numbers: not a figure
        if number < MAX_FIGURES
    }
    room, kept = max(2 * width * height, 32_000_000), {}
    for number, (x1, y1, x2, y2) in found.items():
        area = (x2 - x1) * (y2 - y1)
        if area <= room:
            room -= area
            kept[number] = (x1, y1, x2, y2)
    return kept


def crops(image: Image.Image, refs: Sequence[Ref]) -> list[Image.Image]:
    """The figures of a page: one image per different box of the refs labelled "image", in their order.

    Those that `figure_boxes` leaves out are missing.
    """
    return [image.crop(box) for box in figure_boxes(refs, *image.size).values()]


def reduced(image: Image.Image, box: Box | None = None, pixels: int = MAX_PIXELS) -> Image.Image:
    """The image, or the part of it in `box`; made smaller by a whole factor above `pixels` pixels."""
    x1, y1, x2, y2 = box or (0, 0, *image.size)
    factor = math.ceil(math.sqrt((x2 - x1) * (y2 - y1) / pixels))
    if factor > 1:
        return image.reduce(factor, box)
    return image if box is None else image.crop(box)


def label_colour(label: str) -> tuple[int, int, int]:
    """A colour for a label, dark enough on white paper."""
    code = zlib.crc32(label.encode("utf-8", "replace"))
    return (code & 0xFF) % 200, (code >> 8 & 0xFF) % 200, code >> 16 & 0xFF


def _dashes(pen: ImageDraw.ImageDraw, box: Box, colour, width: int) -> None:
    x1, y1, x2, y2 = box
    for x in range(x1, x2 + 1, 2 * DASH):
        for y in (y1, max(y1, y2 - width + 1)):
            pen.rectangle((x, y, min(x + DASH - 1, x2), min(y + width - 1, y2)), fill=colour)
    for y in range(y1, y2 + 1, 2 * DASH):
        for x in (x1, max(x1, x2 - width + 1)):
            pen.rectangle((x, y, min(x + width - 1, x2), min(y + DASH - 1, y2)), fill=colour)


def _hatch(pen: ImageDraw.ImageDraw, box: Box, colour) -> None:
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
