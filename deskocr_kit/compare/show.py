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


WIDTH = 48  # of a problem in the table; the whole text is in `LayerComparison.isolated.problem`


def _short(problem: str) -> str:
    line = problem.partition("\n")[0]
    return line if len(line) <= WIDTH else line[: WIDTH - 2] + " …"


def _error(closeness) -> str:
    if closeness.problem or closeness.empty:
        return _short(str(closeness))
    return f"{closeness.relative:.1e}" + ("" if closeness.finite else " NaN/Inf")


def _alone(rung) -> str:
    """The error of a block alone; of its formula in fp32 if that is what is wrong."""
    wrong = rung.isolated.ok(rung.budget) and not rung.formula_ok
    return f"{_error(rung.isolated)}; in fp32 {_error(rung.formula)}" if wrong else _error(rung.isolated)


def _rows(ladder) -> list[list[str]]:
    return [
        [
            "ok" if r.ok else "WRONG",
            r.name + (f" #{r.turn}" if r.turn else ""),
            _alone(r),
            f"{r.budget:.1e}",
            "" if r.peer is None else _error(r.peer),
            "not reached" if r.cumulative is None else _error(r.cumulative),
            "" if r.cumulative is None else f"{100 * r.cumulative.within:.1f}%",
        ]
        for r in ladder.rungs
    ]


def _ends(ladder) -> list[str]:
    lines = [f"weights: {w}" for w in ladder.weights[:5]]
    lines += [f"weights: … and {len(ladder.weights) - 5} more"] if len(ladder.weights) > 5 else []
    lines += [f"the run stopped: {ladder.raised}"] if ladder.raised else []
    lines += [f"output ≈ {ladder.output}"] if not ladder.raised else []
    if unseen := ladder.never_compared:
        more = f"; and {len(unseen) - 3} more" if len(unseen) > 3 else ""
        lines.append(f"never compared: {'; '.join(unseen[:3])}{more}")
    lines += [f"note ≈ {note}" for note in ladder.notes]
    return lines + [str(ladder.first) if ladder.first else "no divergence"]


def ladder_text(ladder) -> str:
    return "\n".join([f"ladder: {ladder.about}", text_table(HEAD, _rows(ladder), 2), *_ends(ladder)])


def ladder_html(ladder) -> str:
    ends = "<br>".join(map(escape, _ends(ladder)))
    return f"<p>ladder: {escape(ladder.about)}</p>{html_table(HEAD, _rows(ladder))}<p>{ends}</p>"
