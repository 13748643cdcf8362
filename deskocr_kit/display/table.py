"""A table for notebooks: what must repeat stands left, what was measured stands behind `≈` (see check.py)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

# 3.9:1 or better on JupyterLab's white and on its dark ground alike; a word always says the same
GREEN, AMBER, RED, BLUE, GREY = "#1f883d", "#9a6700", "#d93a32", "#2070d8", "#6e7781"


def head_row(names: Iterable[str], numbers: Collection[str] = ()) -> str:
    """The head of an HTML table. JupyterLab sets heads to the right: only those of `numbers` stay there."""
    cells = "".join(
        f"<th>{escape(name)}</th>" if name in numbers else f'<th style="text-align:left">{escape(name)}</th>'
        for name in names
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _shown(value) -> str:
    return "–" if value is None else str(value)


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
        lines = [left, *([_shown(row[name]) for name in left] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(left))]
        texts = [" ".join(cell.ljust(w + 1) for cell, w in zip(line, widths, strict=True)) for line in lines]
        if right:
            told = [", ".join(right), *(", ".join(_shown(row[name]) for name in right) for row in self.rows)]
            texts = [f"{text} ≈ {tail}" for text, tail in zip(texts, told, strict=True)]
        return "\n".join(([self.caption] if self.caption else []) + [text.rstrip() for text in texts])

    def _repr_html_(self) -> str:
        left, right = self.columns()
        body = "".join(
            "<tr>"
            + "".join(f'<td style="text-align:left">{escape(_shown(row[name]))}</td>' for name in left)
            + "".join(
                f'<td style="text-align:left;opacity:.7">≈ {escape(_shown(row[name]))}</td>' for name in right
            )
            + "</tr>"
            for row in self.rows
        )
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}{head_row((*left, *right))}<tbody>{body}</tbody></table>"
