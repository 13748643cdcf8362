"""Parse HTML and markdown tables in the model's text into rows of cells."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from typing import NamedTuple

MAX_COLUMNS = 1000  # a colspan is model output and must not be able to allocate gigabytes of cells

_TABLE_TAG = re.compile(r"<(/?)table\b[^<>]*>", re.IGNORECASE)
_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?")
_NUMBER = re.compile(r"[-+]?[$€£¥]?\s?\d[\d.,\s]*%?|[-+]?\.?\d+([eE][-+]?\d+)?%?|[-+]")
# Tags that may occur in a cell and do not change its text. All others are text ("0 <x and y> 0").
_MARKUP = re.compile(
    "a|b|i|u|s|em|strong|su[bp]|small|big|font|span|div|p|code|pre|[bh]r|img|ul|ol|li|center|del|ins|mark|"
    "table|thead|tbody|tfoot|t[rdh]|caption|colgroup|col"
)


class Cell(NamedTuple):
    """A cell: its text, and where its content stands in the text that holds the table."""

    text: str
    span: tuple[int, int] | None  # None: filled in, because the row is shorter than others


EMPTY = Cell("", None)


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a text in reading order: table -> rows -> cells (str, white space collapsed).

    HTML: entities are decoded; the text of a cell with rowspan or colspan is repeated in every cell covered;
    an unclosed table ends with the text; a table within a cell is a table of its own. Markdown: pipe tables
    with a rule below the header. All rows of a table have the same length; short ones are filled with "".
    """
    return [[[cell.text for cell in row] for row in table] for table in located_tables(text)]


def located_tables(text: str) -> list[list[list[Cell]]]:
    """As `tables`, with the place of each cell. A repeated cell has the place of its source."""
    found, regions = [], _html_regions(text)
    for start, end in regions:
        parser = _TableParser(text[start:end], start)
        parser.feed(text[start:end])
        parser.close()
        found += [(start, table) for table in parser.finish()]
    blank = list(text)
    for start, end in regions:  # blank out the HTML, so that its pipes are not parsed as markdown
        blank[start:end] = [c if c == "\n" else " " for c in text[start:end]]
    found += _pipe_tables("".join(blank))
    return [table for _, table in sorted(found, key=lambda item: item[0])]


def to_csv(table: list[list[str]]) -> str:
    """A table as CSV (RFC 4180 quoting, "\\n" line ends), safe for spreadsheets (see `csv_safe`)."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([csv_safe(cell) for cell in row] for row in table)
    return file.getvalue()


def csv_safe(cell: str) -> str:
    """Add an apostrophe to a cell that a spreadsheet would run as a formula; numbers (-5%) are unchanged.

    Anyone can make a page: `=HYPERLINK(...)` on it must not become a live formula.
    """
    start = cell.lstrip(" ")[:1]
    if start and start in "=+-@\t\r\n＝＋－＠" and not _NUMBER.fullmatch(cell.strip()):
        return "'" + cell
    return cell


def _html_regions(text: str) -> list[tuple[int, int]]:
    """(start, end) of each outermost <table>...</table>; an unclosed one extends to the end of the text."""
    regions, depth, start = [], 0, None
    for tag in _TABLE_TAG.finditer(text):
        if tag[1]:
            depth -= depth > 0
            if depth == 0 and start is not None:
                regions.append((start, tag.end()))
                start = None
        else:
            if depth == 0:
                start = tag.start()
            depth += 1
    if depth > 0 and start is not None:
        regions.append((start, len(text)))
    return regions


class _Grid:
    """An HTML table while it is filled: cells go to the next free column, spans reserve their cells."""

    def __init__(self):
        self.rows: list[dict[int, Cell]] = []
        self.pending: dict[int, tuple[int, Cell]] = {}  # column -> (rows still covered from above, cell)
        self.cell: list[str] | None = None
        self.start = 0  # of the content of the open cell
        # Spans of the open cell; where the search for a free column starts.
        self.spans, self.column = (1, 1), 0

    def start_row(self, at: int):
        self.end_cell(at)
        self.column = 0
        self.rows.append({c: cell for c, (_, cell) in self.pending.items()})
        self.pending = {c: (left - 1, cell) for c, (left, cell) in self.pending.items() if left > 1}

    def start_cell(self, attributes: dict[str, str | None], at: int, start: int):
        self.end_cell(at)
        if not self.rows:
            self.start_row(at)
        self.cell, self.start = [], start
        self.spans = (_span(attributes.get("rowspan")) or 10**6, _span(attributes.get("colspan")) or 1)

    def end_cell(self, at: int):
        if self.cell is None:
            return
        text, row = " ".join("".join(self.cell).split()), self.rows[-1]
        cell = Cell(text, (self.start, at))
        down, across = self.spans
        while self.column in row:
            self.column += 1
        for c in range(self.column, min(self.column + across, max(MAX_COLUMNS, self.column + 1))):
            if c in row:
                break  # a cell from above is in the way: overlapping spans end there
            row[c] = cell
            if down > 1:
                self.pending[c] = (down - 1, cell)
        self.cell = None

    def finish(self, at: int) -> list[list[Cell]]:
        self.end_cell(at)
        width = max((max(row, default=-1) + 1 for row in self.rows), default=0)
        table = [[row.get(c, EMPTY) for c in range(width)] for row in self.rows if row]
        return table if any(cell.text for row in table for cell in row) else []


class _TableParser(HTMLParser):
    """Fills a stack of grids, because a cell may contain a table."""

    # "<script>" or "<title>" in OCR text must not swallow the rest of the table.
    CDATA_CONTENT_ELEMENTS = RCDATA_CONTENT_ELEMENTS = ()  # type: ignore[misc]  # Final in typeshed only

    def __init__(self, text: str, offset: int):
        super().__init__(convert_charrefs=True)
        self.open: list[_Grid] = []
        self.all: list[_Grid] = []
        self.end = offset + len(text)
        self.lines = [offset]  # where each line of the text starts
        for line in text.split("\n")[:-1]:
            self.lines.append(self.lines[-1] + len(line) + 1)

    def at(self) -> int:
        """Where the current tag starts."""
        line, column = self.getpos()
        return self.lines[line - 1] + column

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.open.append(_Grid())
            self.all.append(self.open[-1])
        elif not self.open:
            return
        elif tag == "tr":
            self.open[-1].start_row(self.at())
        elif tag in ("td", "th"):
            start = self.at()
            self.open[-1].start_cell(dict(attributes), start, start + len(self.get_starttag_text() or ""))
        elif tag in ("br", "p", "div", "li", "hr"):
            self.handle_data(" ")
        elif not _MARKUP.fullmatch(tag):
            self.handle_data(self.get_starttag_text() or "")

    def handle_endtag(self, tag):
        if self.open and tag == "table":
            self.open.pop().end_cell(self.at())
        elif self.open and tag in ("td", "th", "tr"):
            self.open[-1].end_cell(self.at())

    def handle_data(self, data):
        if self.open and self.open[-1].cell is not None:
            self.open[-1].cell.append(data)

    def finish(self) -> list[list[list[Cell]]]:
        return [table for table in (grid.finish(self.end) for grid in self.all) if table]


def _span(value: str | None) -> int:
    """The value of a rowspan or colspan; 1 if it is missing or invalid."""
    value = (value or "1").strip()
    return min(int(value), MAX_COLUMNS) if value.isascii() and value.isdigit() and len(value) < 10 else 1


def _pipe_tables(text: str) -> list[tuple[int, list[list[Cell]]]]:
    """(position, table) of each markdown pipe table."""
    lines, starts, position = text.split("\n"), [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    found, i = [], 1
    while i < len(lines):
        header, rule = _pipe_cells(lines[i - 1], starts[i - 1]), lines[i].strip()
        both = "|" in lines[i - 1] and "|" in rule
        if both and _RULE.fullmatch(rule) and len(_pipe_cells(rule)) == len(header):
            first, rows = i - 1, [header]
            i += 1
            while i < len(lines) and "|" in lines[i]:
                row = _pipe_cells(lines[i], starts[i])[: len(header)]
                rows.append(row + [EMPTY] * (len(header) - len(row)))
                i += 1
            found.append((starts[first], rows))
        i += 1
    return found


def _pipe_cells(line: str, offset: int = 0) -> list[Cell]:
    """The cells of a pipe row that starts at `offset`; "\\|" is a pipe inside a cell."""
    offset += len(line) - len(line.lstrip())
    line = line.strip()
    if line.startswith("|"):
        line, offset = line[1:], offset + 1
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    ends = [*(pipe.start() for pipe in re.finditer(r"(?<!\\)\|", line)), len(line)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [
        Cell(" ".join(line[a:b].replace("\\|", "|").split()), (offset + a, offset + b))
        for a, b in zip(starts, ends, strict=True)
    ]
