"""The ladder as a figure: the error of each block alone, of the dtype alone, and of the run up to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..display.palette import ALONE, IN_RUN, INK, WRONG

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .ladder import Ladder

FLOOR = 1e-7  # exact blocks are drawn here


def draw(ladder: Ladder) -> Figure:
    """Relative error of every rung on a log scale, with its budget. Shapes carry the meaning, not colours."""
    from matplotlib.figure import Figure

    rungs = ladder.rungs
    places = range(len(rungs))
    figure = Figure(figsize=(max(6.5, 0.36 * len(rungs)), 4.4), layout="constrained")
    axes = figure.subplots()
    axes.step(places, [r.budget for r in rungs], where="mid", color=INK, linestyle="--", lw=1, label="budget")
    arrived = [(i, shown(r.cumulative)) for i, r in enumerate(rungs) if r.cumulative is not None]
    axes.plot(*zip(*arrived, strict=True), color=IN_RUN, lw=1, marker=".", label="in the run, errors add up")
    alone = [shown(r.isolated) for r in rungs]
    axes.plot(places, alone, "o", color=ALONE, mfc="none", label="alone, on the reference's inputs")
    peers = [(i, shown(r.peer)) for i, r in enumerate(rungs) if r.peer is not None]
    if peers:
        axes.plot(*zip(*peers, strict=True), "x", color=INK, ms=5, label="alone, same dtype on the CPU")
    wrong = [(i, shown(r.isolated)) for i, r in enumerate(rungs) if not r.ok]
    if wrong:
        axes.plot(*zip(*wrong, strict=True), "s", color=WRONG, ms=9, mfc="none", mew=2, label="WRONG")
    axes.set_yscale("log")
    axes.set_ylim(bottom=FLOOR / 2)
    axes.set_ylabel("relative error")
    axes.set_xticks(places, [r.name.removeprefix("model.") for r in rungs], rotation=90, fontsize=7)
    axes.set_title(f"the ladder: {ladder.about}", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.9, loc="lower right")
    return figure


def shown(closeness) -> float:
    """The value on the log scale; 1 if it is NaN or there was nothing to compare."""
    value = closeness.relative
    return 1.0 if closeness.problem or not closeness.finite else min(1.0, max(FLOOR, value))
