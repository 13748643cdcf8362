"""The report: rows with a status, a finding and a remedy; as text, table, JSON and HTML.

The status is always a word; colour only repeats it. `rich` is optional.
"""

from __future__ import annotations

import html
import textwrap
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ..display.palette import AMBER, GREEN, GREY, RED
from ..display.printable import printable, printable_json
from ..display.table import LEFT, Cell, html_table

if TYPE_CHECKING:
    from .capture import Capture

LIVE = "this machine"
STATUSES = ("OK", "WARN", "FAIL", "SKIP")
# Dark and light notebooks both: text keeps the page's colour, only the word's left edge is coloured.
_EDGE = {"OK": GREEN, "WARN": AMBER, "FAIL": RED, "SKIP": GREY}
_RICH = {"OK": "green", "WARN": "yellow", "FAIL": "bold red", "SKIP": "dim"}


@dataclass(frozen=True)
class Row:
    """One finding. SKIP means that it does not apply or could not be examined; `seen` has the reason."""

    group: str
    name: str
    status: str
    seen: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"row {self.name!r}: status {self.status!r} is none of {', '.join(STATUSES)}")


@dataclass
class Report:
    rows: list[Row]
    device: (
        str | None
    )  # what work can run on: "npu", "cuda", "mps", "cpu"; None: nothing, or not known from files
    source: str = LIVE
    facts: dict = field(default_factory=dict)
    capture: Capture | None = field(default=None, repr=False)  # the raw texts, for a bundle

    @property
    def usable(self) -> bool:
        """Whether no row is FAIL. A machine without an NPU is usable: its NPU rows are SKIP."""
        return all(row.status != "FAIL" for row in self.rows)

    @property
    def exit_code(self) -> int:
        return 0 if self.usable else 1

    @property
    def verdict(self) -> str:
        count = {status: sum(row.status == status for row in self.rows) for status in STATUSES}
        files = self.source != LIVE
        if self.usable:
            what = f"usable ({self.device})" if self.device else "no fault seen"
            what += ", as far as these files show" if files else ""
            return what + (f"; {count['WARN']} warning(s)" if count["WARN"] else "")
        rest = "; the CPU alone would work" if self.device == "cpu" and not files else ""
        return f"NOT usable: {count['FAIL']} fault(s), {count['WARN']} warning(s){rest}"

    def as_dict(self) -> dict:
        return {
            "usable": self.usable,
            "verdict": self.verdict,
            "device": self.device,
            "source": self.source,
            "rows": [asdict(row) for row in self.rows],
            "facts": self.facts,
        }

    def json(self) -> str:
        return printable_json(self.as_dict())

    def text(self, width: int = 100) -> str:
        """Plain text, no colours, no packages. Nothing in it controls a terminal."""
        out, group = [f"deskocr doctor: {self.source}"], None
        wide = max([len(row.name) for row in self.rows], default=0)
        pad = " " * (wide + 8)
        for row in self.rows:
            if row.group != group:
                group = row.group
                out += ["", group]
            lines = _wrap(row.seen, width - len(pad))
            out.append(f"{row.status:<5} {row.name:<{wide}}  {lines[0]}")
            out += [pad + line for line in lines[1:]]
            if row.remedy:
                first, *rest = _wrap(row.remedy, width - len(pad) - 3)
                out += [f"{pad}-> {first}"] + [f"{pad}   {line}" for line in rest]
        return printable("\n".join([*out, "", f"Verdict: {self.verdict}"]))

    __repr__ = text
    __str__ = text

    def _repr_html_(self) -> str:
        rows: list[list[str | Cell]] = [
            [
                Cell(row.status, f"border-left:4px solid {_EDGE[row.status]};{LEFT}", "b"),
                f"{row.group}: {row.name}",
                Cell(row.seen, f"{LEFT};white-space:pre-wrap", below=f"→ {row.remedy}" if row.remedy else ""),
            ]
            for row in self.rows
        ]
        table = html_table(("status", "what", "seen"), rows, caption=f"deskocr doctor: {self.source}")
        return f"{table}<p><b>{html.escape(self.verdict)}</b></p>"

    def print(self) -> None:
        """Print to the terminal: a coloured table with rich, plain text without it."""
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            print(self.text())
            return
        console = Console()
        if not console.is_terminal:  # a pipe gets lines that grep can use
            print(self.text(width=120))
            return
        table = Table(
            title=printable(f"deskocr doctor: {self.source}"), title_justify="left", show_lines=False
        )
        for title in ("", "what", "seen"):
            table.add_column(title, overflow="fold")
        group = None
        for row in self.rows:
            if group is not None and row.group != group:
                table.add_section()
            group = row.group
            seen = Text(printable(row.seen))
            if row.remedy:
                seen.append(
                    printable(f"\n→ {row.remedy}"), style="cyan" if row.status in ("WARN", "FAIL") else "dim"
                )
            table.add_row(Text(row.status, style=_RICH[row.status]), Text(printable(row.name)), seen)
        console.print(table)
        console.print(Text(f"Verdict: {self.verdict}", style="bold"))


def _wrap(text: str, width: int) -> list[str]:
    out: list[str] = []
    for line in text.splitlines() or [""]:
        out += textwrap.wrap(line, max(width, 30), break_long_words=False, break_on_hyphens=False) or [""]
    return out
