"""A text drawn character by character, with the confidence of each token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...display.palette import INK, TOKEN_EDGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from model.confidence import Scores

SURE, CLOSE, UNSURE = 0.99, 0.9, 0.5  # from here: nothing, a thin bar, a thick bar; below: a hatch as well
FILLS = {SURE: ("white", ""), CLOSE: ("#f6e3bd", ""), UNSURE: ("#e9a95c", "//"), 0.0: ("#d2604f", "xx")}
NAMES = {SURE: "0.99 to 1", CLOSE: "0.9 to 0.99", UNSURE: "0.5 to 0.9", 0.0: "below 0.5"}


def level(value: float) -> float:
    """The lower end of the range that a probability lies in: a key of NAMES."""
    return next(bound for bound in FILLS if value >= bound)


def draw_confidence(scores: Scores, title: str = "") -> Figure:
    """Draw each character in a cell whose fill and hatch state the probability of its token.

    A character that two tokens write, or a token of several characters, has the lowest probability of its
    tokens. The end of a line is drawn as ¶, because a line that ends too early shows there.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    legible = [withStroke(linewidth=2.5, foreground="white")]  # letters stand out from the hatch
    lowest = [1.0] * (len(scores.text) + 1)
    for value, (start, end) in zip(scores.tokens, scores.spans, strict=True):
        for at in range(start, max(end, start + 1)):  # the end token has no characters: it is the last cell
            lowest[at] = min(lowest[at], value)
    lines = (scores.text + "\n").split("\n")[:-1]
    across, down = max(map(len, lines)) + 1, len(lines)
    side = min(0.26, 7.5 / across)  # inches of one cell
    figure = Figure(figsize=(0.4 + side * across, 1.0 + 1.5 * side * down), layout="constrained")
    axes, at = figure.subplots(), 0
    for y, line in enumerate(lines):
        for x, letter in enumerate(line + "¶"):
            color, hatch = FILLS[level(lowest[at])]
            box = Rectangle((x, y * 1.5), 1, 1.3, facecolor=color, hatch=hatch, edgecolor=TOKEN_EDGE, lw=0.3)
            axes.add_patch(box)
            where = (x + 0.5, y * 1.5 + 0.65)
            axes.text(*where, letter, ha="center", va="center", fontsize=9, color=INK, path_effects=legible)
            at += 1
    keys = [Rectangle((0, 0), 1, 1, facecolor=c, hatch=h, edgecolor=TOKEN_EDGE) for c, h in FILLS.values()]
    axes.legend(
        keys, NAMES.values(), ncols=4, loc="upper left", bbox_to_anchor=(0, -0.02), fontsize=7, frameon=False
    )
    axes.set(xlim=(-0.1, across + 0.1), ylim=(1.5 * down, -0.1), aspect="equal", anchor="W")
    axes.set_title(title, loc="left", fontsize=10)
    axes.axis("off")
    return figure
