"""A matplotlib figure that a notebook shows as a PNG, with its caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...display.palette import INK
from ..captioned import captioned


@dataclass
class Drawing:
    """A matplotlib figure with a caption that describes it."""

    figure: Any
    caption: str

    def __repr__(self) -> str:
        return f"[picture] {self.caption}"

    def _repr_png_(self) -> tuple[bytes, dict]:
        return captioned(self.figure, self.caption, dpi=90)


def blank(width: float, height: float, count: int = 1, ratios=None):
    """Return (figure, axes) without axis lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def cell(axis, x: float, y: float, text="", colour: str = "white", hatch: str = "", w=1.0, h=1.0, size=7):
    """Draw one cell of memory with its upper left corner at (x, y)."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((x, y), w, h, facecolor=colour, edgecolor=INK, hatch=hatch, linewidth=0.6))
    if text != "":
        axis.text(
            x + w / 2, y + h / 2, str(text), ha="center", va="center", fontsize=size,
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8} if hatch else None,
        )  # fmt: skip


def frame(axis, width: float, height: float, title: str) -> None:
    """Set the limits and the title of an axis: square cells, y downwards, a small margin."""
    axis.set_xlim(-0.3, width + 0.3)
    axis.set_ylim(height + 0.3, -0.3)
    axis.set_aspect("equal")
    axis.set_title(title, fontsize=9)
