"""Pictures for notebooks: a page beside its text, boxes on a page.

The text that a model wrote is a measurement, so it is in a picture, or right of `≈` in a terminal (see
check.py). Each picture has its caption below it, and an alternative text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.confidence import Scores
from model.results import draw_overlay, parse_boxes, to_pixels_box

from ..synthetic_pages.render import font_folder
from .captioned import captioned


@dataclass
class Beside:
    """A page and the text that was read from it, side by side.

    scores: of the text (`Reading.scores`); each line then has its confidence in percent before it.
    """

    image: Any
    text: str
    caption: str = "page"
    height: int = 360  # pixels of the picture
    scores: Scores | None = None

    def __repr__(self) -> str:
        return f"{self.caption} ≈ {self.text!r}{_sure(self.scores)}"

    def _repr_png_(self) -> tuple[bytes, dict]:
        from PIL import Image, ImageDraw, ImageFont

        page = self.image.convert("L").resize(
            (round(self.image.width * self.height / self.image.height), self.height)
        )
        face = ImageFont.truetype(str(font_folder() / "DejaVuSansMono.ttf"), 15)
        sheet = Image.new("L", (page.width + 400, self.height), 255)
        sheet.paste(page, (0, 0))
        pen = ImageDraw.Draw(sheet)
        pen.rectangle((0, 0, page.width - 1, self.height - 1), outline=128)
        text = self.text
        if self.scores is not None:
            lines = self.scores.lines()
            values = ["     " if value is None else f"{100 * value:3.0f}% " for _, value in lines]
            text = "\n".join(value + shown for value, (shown, _) in zip(values, lines, strict=True))
        pen.multiline_text((page.width + 20, 16), text, font=face, fill=0, spacing=10)
        before = "" if self.scores is None else "; before each line its confidence in percent"
        return captioned(sheet, f"{self.caption}, and beside it the text that was read from it{before}")


@dataclass
class Boxes:
    """A page with the boxes in a model's text. `rows` holds (label, box in pixels) of each.

    scores: of the text (`Reading.scores`); each box then carries its confidence, see overlay.draw_overlay.
    """

    image: Any
    text: str
    scores: Scores | None = None

    def __post_init__(self):
        self.refs = parse_boxes(self.text)
        self.picture = draw_overlay(self.image, self.refs, self.scores.boxes() if self.scores else None)
        self.rows = [
            (ref.label, to_pixels_box(box, *self.image.size)) for ref in self.refs for box in ref.boxes
        ]

    def __repr__(self) -> str:
        return f"boxes ≈ {[label for label, _ in self.rows]}{_sure(self.scores)}"

    def _repr_png_(self) -> tuple[bytes, dict]:
        words = f"the page with {len(self.rows)} boxes drawn"
        labels = ", ".join(label for label, _ in self.rows)
        beside = "" if self.scores is None else ", each with its confidence"
        return captioned(self.picture, words + beside, alt=f"{words}: {labels}")


@dataclass
class Picture:
    """A matplotlib Figure or a PIL image, with a caption below it that describes it."""

    image: Any
    caption: str

    def __repr__(self) -> str:
        return self.caption

    def _repr_png_(self) -> tuple[bytes, dict]:
        return captioned(self.image, self.caption)


def _sure(scores: Scores | None) -> str:
    return "" if scores is None or scores.page is None else f", confidence {scores.page:.2f}"
