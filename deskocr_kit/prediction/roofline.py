"""A prediction as a figure: per plan a bar from low to high, and the limit of the hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..display.palette import BOUND, INK, NEUTRAL, PLANS

if TYPE_CHECKING:
    from .estimate import Prediction


def draw(made: Prediction):
    """A matplotlib Figure: TTFT left, TPOT right, milliseconds on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = zip(figure.subplots(1, 2), (made.ttft, made.tpot), ("TTFT", "TPOT"), strict=True)
    for axis, of, title in panels:
        for y, work in enumerate(made.works):
            found = of(work.plan)
            colour, hatch = PLANS.get(work.plan, (NEUTRAL, ""))
            low, high = found.expected.low * 1e3, found.expected.high * 1e3
            axis.barh(y, high - low, left=low, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6)
            axis.text(high, y, f"  {found.expected}", va="center", fontsize=9)
            bound = found.bound
            axis.plot([bound.low * 1e3, bound.high * 1e3], [y, y], color=BOUND, lw=3, marker="|")
        axis.set_yticks(range(len(made.works)), [work.plan for work in made.works])
        axis.invert_yaxis()
        axis.set_xscale("log")
        edge = axis.get_xlim()
        axis.set_xlim(edge[0] / 1.6, edge[1] * 4)  # room for the marks of the bounds, and for the figures
        axis.set_title(f"{title}; line: lower bound, bar: predicted", fontsize=10)
        axis.set_xlabel("ms, logarithmic", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"PREDICTION, not measured: {made.chip.name}, {made.subject}, {made.dtype}", fontsize=11)
    return figure
