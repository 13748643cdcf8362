"""Tables of the ladder, as text and HTML.

Values that depend on rounding are right of `≈`, as everywhere in this kit (see course/check.py); only names
and verdicts are compared by tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..display import table
from ..display.palette import GREEN, RED
from ..display.table import LEFT, Cell, text_table

COLOURS = {"ok": GREEN, "WRONG": RED, "OVERFLOW": RED}


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], measured: int = 2) -> str:
    """Columns from number `measured` on are what was measured; verdicts have a colour."""

    def cell(i: int, text: str) -> Cell:
        style = f"{LEFT};color:{COLOURS[text]};font-weight:bold" if text in COLOURS else LEFT
        return Cell(("≈ " if i >= measured and text else "") + text, style)

    return table.html_table(head, [[cell(*each) for each in enumerate(row)] for row in rows])


HEAD = ("verdict", "block", "isolated", "budget", "same dtype, CPU", "cumulative", "within")


def _rows(ladder) -> list[list[str]]:
    return [
        [
            "ok" if r.ok else "WRONG",
            r.name + (f" #{r.turn}" if r.turn else ""),
            r.isolated.problem or (f"{r.isolated.relative:.1e}" + ("" if r.isolated.finite else " NaN/Inf")),
            f"{r.budget:.1e}",
            "" if r.peer is None else f"{r.peer.relative:.1e}",
            "not reached" if r.cumulative is None else r.cumulative.problem or f"{r.cumulative.relative:.1e}",
            "" if r.cumulative is None else f"{100 * r.cumulative.within:.1f}%",
        ]
        for r in ladder.rungs
    ]


def _ends(ladder) -> list[str]:
    lines = [f"weights: {w}" for w in ladder.weights[:5]]
    lines += [f"weights: … and {len(ladder.weights) - 5} more"] if len(ladder.weights) > 5 else []
    lines += [f"the run stopped: {ladder.raised}"] if ladder.raised else []
    lines += [f"output ≈ {ladder.output}"] if not ladder.raised else []
    return lines + [str(ladder.first) if ladder.first else "no divergence"]


def ladder_text(ladder) -> str:
    return "\n".join([f"ladder: {ladder.about}", text_table(HEAD, _rows(ladder), 2), *_ends(ladder)])


def ladder_html(ladder) -> str:
    ends = "<br>".join(map(escape, _ends(ladder)))
    return f"<p>ladder: {escape(ladder.about)}</p>{html_table(HEAD, _rows(ladder))}<p>{ends}</p>"
