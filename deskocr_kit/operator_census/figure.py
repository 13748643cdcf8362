"""The census as a figure: the calls of each operator per phase, hatched by verdict."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..display.palette import INK, VERDICTS

if TYPE_CHECKING:
    from matplotlib.artist import Artist

    from .result import Census

BARS = 14


def draw(census: Census):
    """A matplotlib Figure: a panel per phase, a bar for each operator that needs care or is frequent.

    The axis of a panel says how many rows of the table it shows, if not all.
    """
    from matplotlib.figure import Figure

    phases = census.phases() or [""]
    figure = Figure(figsize=(max(5.2, 3.7 * len(phases)), 4.8), layout="constrained")
    seen: dict[str, Artist] = {}
    for axis, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
        rows = sorted((r for r in census.rows() if r["calls"][phase]), key=lambda r: -r["calls"][phase])
        worst = [r for r in rows if r["verdict"] in ("CPU fallback", "AI CPU", "slow kernel", "unknown")]
        shown = (worst + [r for r in rows if r not in worst])[:BARS]  # bad verdicts first, also if rare
        for y, row in enumerate(shown):
            colour, hatch = VERDICTS[row["verdict"]]
            bar = axis.barh(y, row["calls"][phase], color=colour, hatch=hatch, edgecolor=INK, linewidth=0.5)
            seen.setdefault(row["verdict"], bar)
            axis.text(row["calls"][phase], y, f" {row['calls'][phase]}", va="center", fontsize=8)
        axis.set_yticks(range(len(shown)), names(shown), fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        left_out = f"; {len(shown)} of {len(rows)} rows, slow ones first" if len(shown) < len(rows) else ""
        axis.set_xlabel(f"calls{left_out}", fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title(
            f"{phase or 'forward'}: {census.work(phase)}",
            fontsize=9,
        )
        axis.spines[["top", "right"]].set_visible(False)
    if seen:
        handles = list(seen.values())
        figure.legend(handles, list(seen), loc="outside lower center", ncols=len(seen), fontsize=8)
    figure.suptitle(
        f"{census.subject or 'operators'}, torch_npu {census.torch_npu} (static count)", fontsize=11
    )
    return figure


def names(rows: list[dict]) -> list[str]:
    """The operator of each row; an operator with several rows has its verdict below it."""
    times = Counter(row["operator"] for row in rows)
    return [r["operator"] + (f"\n({r['verdict']})" if times[r["operator"]] > 1 else "") for r in rows]
