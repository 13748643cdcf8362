"""Pictures for notebooks: a page beside its text, boxes on a page. Text from a model is escaped."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any


def png(image, width: int | None = None) -> str:
    """An <img> tag's source for a PIL image, scaled down to `width` pixels where it is wider."""
    if width and image.width > width:
        image = image.resize((width, round(image.height * width / image.width)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Beside:
    """A page and what was read from it, side by side. In a terminal: the text."""

    image: Any
    text: str
    caption: str = "page"
    width: int = 340

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        source = png(self.image.convert("L"), self.width)
        alt = f"{self.caption}: the picture that was read"
        return (
            '<table><tr><th style="text-align:left">page</th><th style="text-align:left">text</th></tr><tr>'
            f'<td><img src="{source}" alt="{escape(alt)}" style="border:1px solid #999"></td>'
            f'<td style="text-align:left;vertical-align:top"><pre>{escape(self.text)}</pre></td></tr></table>'
        )


@dataclass
class Boxes:
    """A page with the boxes that the model gave. In a terminal: their labels, line by line."""

    image: Any
    text: str
    width: int = 420

    def __post_init__(self):
        from model.results import draw_overlay, parse_boxes, to_pixels_box

        self.refs = parse_boxes(self.text)
        self.picture = draw_overlay(self.image, self.refs)
        self.rows = [
            (ref.label, to_pixels_box(box, *self.image.size)) for ref in self.refs for box in ref.boxes
        ]

    def __repr__(self) -> str:
        return "\n".join(label for label, _ in self.rows)

    def _repr_html_(self) -> str:
        source = png(self.picture, self.width)
        return f'<img src="{source}" alt="the page with {len(self.rows)} boxes drawn on it">'
