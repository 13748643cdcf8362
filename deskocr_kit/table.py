"""A table for notebooks: what must repeat stands left, what was measured stands behind `≈` (see check.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass
class Table:
    """`rows`: one dict per line. The columns named in `measured` are shown and never compared."""

    rows: Sequence[dict]
    measured: tuple[str, ...] = ()
    caption: str = ""

    def columns(self) -> tuple[list[str], list[str]]:
        """(contract, measured), each in the order of the first row."""
        names = list(self.rows[0]) if self.rows else []
        return [n for n in names if n not in self.measured], [n for n in names if n in self.measured]

    def __repr__(self) -> str:
        left, right = self.columns()
        lines = [left, *([str(row[name]) for name in left] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(left))]
        texts = [" ".join(cell.ljust(w + 1) for cell, w in zip(line, widths, strict=True)) for line in lines]
        if right:
            told = [", ".join(right), *(", ".join(str(row[name]) for name in right) for row in self.rows)]
            texts = [f"{text} ≈ {tail}" for text, tail in zip(texts, told, strict=True)]
        return "\n".join(([self.caption] if self.caption else []) + [text.rstrip() for text in texts])

    def _repr_html_(self) -> str:
        left, right = self.columns()
        head = "".join(f"<th>{escape(name)}</th>" for name in (*left, *right))
        body = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:left">{escape(str(row[name]))}</td>' for name in left)
            + "".join(
                f'<td style="text-align:left;opacity:.7">≈ {escape(str(row[name]))}</td>' for name in right
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
