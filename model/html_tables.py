"""Parse the HTML tables in the model's text. Linear in the length of the text, with bounds on what comes out.

This is no HTML parser: the text is what a model wrote. Only well-formed tags of a closed list are markup; any
other "<" is text, because cells hold comparisons ("0.5<S≤1") and variables. So are comments and declarations.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_COLUMNS = 1000  # a colspan is model output and must not be able to allocate gigabytes of cells
MAX_DEPTH = 20  # tables in tables
MAX_CELLS = 100_000  # per page; a page of the official model has at most 8192 tokens
MAX_TABLES = 300  # per page; each is a file
MAX_CHARACTERS = 1_000_000  # per page, in cells; a cell with spans counts once for each cell it covers

# Neither part can extend over another "<", so that every "<" is looked at once.
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)(?![a-zA-Z0-9])([^<>]*)>")
_ATTRIBUTE = re.compile(
    r"""([^\s"'<>/=]{1,64})(\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>=`]+)))?(?![^\s/])[\s/]*"""
)
_BETWEEN = " \t\r\n\f\v/"  # attributes
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{9,}|[xX][0-9a-fA-F]{9,});?")

_STRUCTURE = {"table", "tr", "td", "th", "thead", "tbody", "tfoot", "caption", "colgroup", "col"}
_BREAK = {"br", "hr", "p", "div", "li", "ul", "ol", "pre", "center", "h1", "h2", "h3", "h4", "h5", "h6"}
_INLINE = {"a", "b", "i", "u", "s", "em", "strong", "sub", "sup", "small", "big", "font", "span", "code"}
_INLINE |= {"img", "del", "ins", "mark"}
#: The tags that may occur in a cell and do not change its text.
TAGS = frozenset(_STRUCTURE | _BREAK | _INLINE)


class Cell(NamedTuple):
    """A cell: its text, and where its content stands in the text that holds the table."""

    text: str
    span: tuple[int, int] | None  # None: filled in, because the row is shorter than others


EMPTY = Cell("", None)
Table = list[list[Cell]]


class Tag(NamedTuple):
    """A tag of the closed list. attributes: names in lower case; None for a name without a value."""

    name: str
    closing: bool
    attributes: dict[str, str | None]
    well_formed: bool  # False: some attributes could not be parsed and were skipped
    start: int
    end: int


@dataclass
class Room:
    """What the tables of one page may still hold, and what was left out."""

    cells: int = MAX_CELLS
    characters: int = MAX_CHARACTERS
    tables: int = MAX_TABLES
    cut: list[str] = field(default_factory=list)
    tables_over: int = 0

    def fitting(self, rows: Table, at: int, more: int = 0) -> Table:
        """The first rows that fit; the others, and `more` that were not even made, are noted in `cut`."""
        if rows and not self.tables:
            self.tables_over += 1
            return []
        self.tables -= bool(rows)
        kept: Table = []
        for row in rows:
            characters = sum(len(cell.text) for cell in row)
            if characters > self.characters:  # one long text, repeated by its spans: keep it once
                row = [c if i == 0 or c is not row[i - 1] else EMPTY for i, c in enumerate(row)]
                characters = sum(len(cell.text) for cell in row)
            if len(row) > self.cells or characters > self.characters:
                break
            self.cells, self.characters = self.cells - len(row), self.characters - characters
            kept.append(row)
        left_out = len(rows) - len(kept) + more
        if left_out:
            self.cells = self.characters = 0  # a later, smaller table must not fill the gap
            self.cut.append(
                f"table at character {at:,}: {left_out:,} rows were left out; the tables of a page hold at "
                f"most {MAX_CELLS:,} cells and {MAX_CHARACTERS:,} characters"
            )
        return kept


def tags(text: str) -> Iterator[Tag]:
    """The well-formed tags of the closed list, in order."""
    for match in _TAG.finditer(text):
        if (name := match[2].lower()) not in TAGS:
            continue
        attributes, well_formed = _attributes(match[3])
        # Of the structure of a table every tag counts: to lose a cell is worse. An inline tag needs a value
        # for each of its names: "a <b and c> d" is a comparison.
        if name not in _STRUCTURE and (not well_formed or None in attributes.values()):
            continue
        yield Tag(name, bool(match[1]), attributes, well_formed, match.start(), match.end())


def _attributes(rest: str) -> tuple[dict[str, str | None], bool]:
    """(the attributes in a tag up to the first that cannot be parsed, whether all could)."""
    found: dict[str, str | None] = {}
    at = len(rest) - len(rest.lstrip(_BETWEEN))
    if rest and at == 0:
        return found, False
    while at < len(rest):
        match = _ATTRIBUTE.match(rest, at)
        if match is None:
            return found, False
        found[match[1].lower()] = next((v for v in match.groups()[2:] if v is not None), None)
        at = match.end()
    return found, True


def unescape(text: str) -> str:
    """`html.unescape`, except that a character reference of more than eight digits is U+FFFD.

    Python refuses to convert more than 4,300 digits, and no such number is a character.
    """
    return html.unescape(_LONG_NUMBER.sub("\N{REPLACEMENT CHARACTER}", text)) if "&" in text else text


def html_tables(text: str, room: Room) -> tuple[list[tuple[int, Table]], list[tuple[int, int]]]:
    """([(position, table)] in the order of their tags, [(start, end)] of each outermost table).

    Entities are decoded; a cell with spans is repeated in every cell that it covers; an unclosed table ends
    with the text; a table within a cell is a table of its own.
    """
    open_grids: list[_Grid] = []
    grids: list[tuple[int, _Grid]] = []
    regions: list[tuple[int, int]] = []
    used, position, hidden = [MAX_CELLS], 0, 0  # hidden: open tables beyond MAX_DEPTH
    for tag in tags(text):
        if open_grids:
            open_grids[-1].add(text[position : tag.start])
        position = tag.end
        if tag.name == "table":
            if not tag.closing and len(open_grids) >= MAX_DEPTH:
                hidden += 1
                if hidden == 1:
                    room.cut.append(f"tables nested deeper than {MAX_DEPTH} are read as part of their cell")
            elif not tag.closing:
                open_grids.append(_Grid(used))
                grids.append((tag.start, open_grids[-1]))
            elif hidden:
                hidden -= 1
            elif open_grids:
                open_grids.pop().end_cell(tag.start)
                if not open_grids:
                    regions.append((_outermost(grids, regions), tag.end))
        elif not open_grids or hidden:
            continue
        elif tag.name in ("td", "th", "tr"):
            _structure(open_grids[-1], tag)
        elif tag.name in _BREAK:
            open_grids[-1].add(" ")
    if open_grids:
        open_grids[-1].add(text[position:])
        regions.append((_outermost(grids, regions), len(text)))
    found = []
    for start, grid in grids:
        rows, more = grid.rectangle(len(text), room.cells)
        if table := room.fitting(rows, start, more):
            found.append((start, table))
    return found, regions


def _outermost(grids: list[tuple[int, _Grid]], regions: list[tuple[int, int]]) -> int:
    """Where the outermost table that is open begins."""
    after = regions[-1][1] if regions else 0
    return next(start for start, _ in grids if start >= after)


def _structure(grid: _Grid, tag: Tag) -> None:
    if tag.closing:
        grid.end_cell(tag.start)
    elif tag.name == "tr":
        grid.start_row(tag.start)
    else:
        grid.start_cell(tag)


class _Grid:
    """A table while it is filled: cells go to the next free column, spans reserve their cells."""

    def __init__(self, left: list[int]):
        self.left = left  # cells that the tables of the page may still store, shared by them
        self.full = False  # nothing more is stored; the rows are counted in `refused`
        self.refused = 0
        self.rows: list[dict[int, Cell]] = []
        self.pending: dict[int, tuple[int, Cell]] = {}  # column -> (rows still covered from above, cell)
        self.cell: list[str] | None = None
        self.start = 0  # of the content of the open cell
        # Spans of the open cell; where the search for a free column starts.
        self.spans, self.column = (1, 1), 0

    def add(self, text: str) -> None:
        if self.cell is not None and text:
            self.cell.append(text)

    def start_row(self, at: int) -> None:
        self.end_cell(at)
        self.column = 0
        if not self._take(len(self.pending) + 1):
            self.refused += 1
            return
        self.rows.append({c: cell for c, (_, cell) in self.pending.items()})
        self.pending = {c: (left - 1, cell) for c, (left, cell) in self.pending.items() if left > 1}

    def start_cell(self, tag: Tag) -> None:
        self.end_cell(tag.start)
        if not self.rows and not self.full:
            self.start_row(tag.start)
        if self.full:
            self.refused += not self.refused  # the rest of a row counts as a row
            return
        self.cell, self.start = [], tag.end
        span = tag.attributes
        self.spans = (_span(span.get("rowspan")) or 10**6, _span(span.get("colspan")) or 1)

    def end_cell(self, at: int) -> None:
        if self.cell is None:
            return
        text, row = " ".join(unescape("".join(self.cell)).split()), self.rows[-1]
        cell = Cell(text, (self.start, at))
        self.cell = None
        down, across = self.spans
        while self.column in row:
            self.column += 1
        for c in range(self.column, min(self.column + across, max(MAX_COLUMNS, self.column + 1))):
            if c in row:
                break  # a cell from above is in the way: overlapping spans end there
            if not self._take(1):
                self.refused += 1
                return
            row[c] = cell
            if down > 1:
                self.pending[c] = (down - 1, cell)

    def _take(self, cells: int) -> bool:
        """Whether the page may store so many more cells; if not, this table is full."""
        self.full = self.full or cells > self.left[0]
        if not self.full:
            self.left[0] -= cells
        return not self.full

    def rectangle(self, at: int, most: int) -> tuple[Table, int]:
        """(rows, all of one length, of at most `most` cells; number of further rows).

        No rows if there is no text in them.
        """
        self.end_cell(at)
        rows = [row for row in self.rows if row]
        if not any(cell.text for row in rows for cell in row.values()):
            return [], self.refused
        width = max(max(row) + 1 for row in rows)
        kept = rows[: most // width]
        return [[row.get(c, EMPTY) for c in range(width)] for row in kept], len(rows) - len(
            kept
        ) + self.refused


def _span(value: str | None) -> int:
    """The value of a rowspan or colspan; 1 if it is missing or invalid."""
    value = (value or "1").strip()
    return min(int(value), MAX_COLUMNS) if value.isascii() and value.isdigit() and len(value) < 10 else 1
