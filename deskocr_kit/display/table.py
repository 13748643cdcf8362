"""Tables as text, HTML and Markdown, with one layout for every report of the kit.

Measured values are on the right of `≈`; everything on the left of it must be the same in every run (see
course/check.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape

LEFT = "text-align:left"  # JupyterLab aligns cells to the right


@dataclass(frozen=True)
class Cell:
    """A cell of an HTML table with its own style.

    style: CSS declarations; "" leaves the alignment to the page. tag: an element around the text, for example
    "b" or "code". below: text of a second line.
    """

    text: str
    style: str = LEFT
    tag: str = ""
    below: str = ""

    def html(self) -> str:
        inner = escape(self.text)
        inner = f"<{self.tag}>{inner}</{self.tag}>" if self.tag else inner
        below = f"<br>{escape(self.below)}" if self.below else ""
        style = f' style="{self.style}"' if self.style else ""
        return f"<td{style}>{inner}{below}</td>"


def text_table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    measured: int | None = None,
    right: bool = False,
    indent: str = "",
) -> str:
    """A table with aligned columns, two spaces apart.

    measured: index of the first column on the right of `≈`. right: align to the right. indent: text before
    each line.
    """
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def join(line: list[str]) -> str:
        cells = [c.rjust(w) if right else c.ljust(w) for c, w in zip(line, widths, strict=True)]
        if measured is not None:
            cells[measured:] = ["≈ " + "  ".join(cells[measured:])]
        return (indent + "  ".join(cells)).rstrip()

    return "\n".join(map(join, lines))


def html_table(
    head: Iterable[str],
    rows: Iterable[Sequence[str | Cell]],
    numbers: Collection[str] = (),
    caption: str = "",
    titles: Iterable[str] | None = None,
) -> str:
    """A <table> element. All text is escaped.

    numbers: names of the columns whose head stays on the right. titles: one tooltip per row.
    """
    body, titled = [], iter(titles) if titles is not None else None
    for row in rows:
        cells = "".join((each if isinstance(each, Cell) else Cell(each)).html() for each in row)
        title = f' title="{escape(next(titled))}"' if titled is not None else ""
        body.append(f"<tr{title}>{cells}</tr>")
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{above}{head_row(head, numbers)}<tbody>{''.join(body)}</tbody></table>"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table. Pipes in the text are escaped, line breaks become spaces."""
    lines = [[text.replace("|", "\\|").replace("\n", " ") for text in row] for row in (head, *rows)]
    shown = ["| " + " | ".join(line) + " |" for line in lines]
    return [shown[0], "|" + "---|" * len(head), *shown[1:]]


def head_row(names: Iterable[str], numbers: Collection[str] = ()) -> str:
    """The head of an HTML table. JupyterLab aligns heads to the right; only those in `numbers` stay there."""
    cells = "".join(
        f"<th>{escape(name)}</th>" if name in numbers else f'<th style="text-align:left">{escape(name)}</th>'
        for name in names
    )
    return f"<thead><tr>{cells}</tr></thead>"


def _shown(value) -> str:
    return "–" if value is None else str(value)


@dataclass
class Table:
    """A table for notebooks.

    rows: one dict per line. measured: the columns whose values are shown and never compared.
    """

    rows: Sequence[dict]
    measured: tuple[str, ...] = ()
    caption: str = ""

    def columns(self) -> tuple[list[str], list[str]]:
        """The names of the compared and of the measured columns, each in the order of the first row."""
        names = list(self.rows[0]) if self.rows else []
        return [n for n in names if n not in self.measured], [n for n in names if n in self.measured]

    def __repr__(self) -> str:
        left, right = self.columns()
        lines = [left, *([_shown(row[name]) for name in left] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(left))]
        texts = [" ".join(cell.ljust(w + 1) for cell, w in zip(line, widths, strict=True)) for line in lines]
        if right:
            tails = [", ".join(right), *(", ".join(_shown(row[name]) for name in right) for row in self.rows)]
            texts = [f"{text} ≈ {tail}" for text, tail in zip(texts, tails, strict=True)]
        return "\n".join(([self.caption] if self.caption else []) + [text.rstrip() for text in texts])

    def _repr_html_(self) -> str:
        left, right = self.columns()
        rows: Iterable[list[str | Cell]] = (
            [
                *(_shown(row[name]) for name in left),
                *(Cell(f"≈ {_shown(row[name])}", f"{LEFT};opacity:.7") for name in right),
            ]
            for row in self.rows
        )
        return html_table((*left, *right), rows, caption=self.caption)
