"""Parse HTML and markdown tables in the model's text into rows of cells."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

MAX_COLUMNS = 1000  # a colspan is model output and must not be able to allocate gigabytes of cells

_TABLE_TAG = re.compile(r"<(/?)table\b[^<>]*>", re.IGNORECASE)
_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?")
_NUMBER = re.compile(r"[-+]?[$€£¥]?\s?\d[\d.,\s]*%?|[-+]?\.?\d+([eE][-+]?\d+)?%?|[-+]")
# Tags that may occur in a cell and do not change its text. All others are text ("0 <x and y> 0").
_MARKUP = re.compile(
    "a|b|i|u|s|em|strong|su[bp]|small|big|font|span|div|p|code|pre|[bh]r|img|ul|ol|li|center|del|ins|mark|"
    "table|thead|tbody|tfoot|t[rdh]|caption|colgroup|col"
)


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a text in reading order: table -> rows -> cells (str, white space collapsed).

    HTML: entities are decoded; the text of a cell with rowspan or colspan is repeated in every cell covered;
    an unclosed table ends with the text; a table within a cell is a table of its own. Markdown: pipe tables
    with a rule below the header. All rows of a table have the same length; short ones are filled with "".
    """
    found, regions = [], _html_regions(text)
    for start, end in regions:
        parser = _TableParser()
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
        self.rows: list[dict[int, str]] = []
        self.pending: dict[int, tuple[int, str]] = {}  # column -> (rows still covered from above, text)
        self.cell: list[str] | None = None
        # Spans of the open cell; where the search for a free column starts.
        self.spans, self.column = (1, 1), 0

    def start_row(self):
        self.end_cell()
        self.column = 0
        self.rows.append({c: text for c, (_, text) in self.pending.items()})
        self.pending = {c: (left - 1, text) for c, (left, text) in self.pending.items() if left > 1}

    def start_cell(self, attributes: dict[str, str | None]):
        self.end_cell()
        if not self.rows:
            self.start_row()
        self.cell = []
        self.spans = (_span(attributes.get("rowspan")) or 10**6, _span(attributes.get("colspan")) or 1)

    def end_cell(self):
        if self.cell is None:
            return
        text, row = " ".join("".join(self.cell).split()), self.rows[-1]
        down, across = self.spans
        while self.column in row:
            self.column += 1
        for c in range(self.column, min(self.column + across, max(MAX_COLUMNS, self.column + 1))):
            if c in row:
                break  # a cell from above is in the way: overlapping spans end there
            row[c] = text
            if down > 1:
                self.pending[c] = (down - 1, text)
        self.cell = None

    def finish(self) -> list[list[str]]:
        self.end_cell()
        width = max((max(row, default=-1) + 1 for row in self.rows), default=0)
        table = [[row.get(c, "") for c in range(width)] for row in self.rows if row]
        return table if any(any(row) for row in table) else []


class _TableParser(HTMLParser):
    """Fills a stack of grids, because a cell may contain a table."""

    # "<script>" or "<title>" in OCR text must not swallow the rest of the table.
    CDATA_CONTENT_ELEMENTS = RCDATA_CONTENT_ELEMENTS = ()  # type: ignore[misc]  # Final in typeshed only

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open: list[_Grid] = []
        self.all: list[_Grid] = []

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.open.append(_Grid())
            self.all.append(self.open[-1])
        elif not self.open:
            return
        elif tag == "tr":
            self.open[-1].start_row()
        elif tag in ("td", "th"):
            self.open[-1].start_cell(dict(attributes))
        elif tag in ("br", "p", "div", "li", "hr"):
            self.handle_data(" ")
        elif not _MARKUP.fullmatch(tag):
            self.handle_data(self.get_starttag_text() or "")

    def handle_endtag(self, tag):
        if self.open and tag == "table":
            self.open.pop().end_cell()
        elif self.open and tag in ("td", "th", "tr"):
            self.open[-1].end_cell()

    def handle_data(self, data):
        if self.open and self.open[-1].cell is not None:
            self.open[-1].cell.append(data)

    def finish(self) -> list[list[list[str]]]:
        return [table for table in (grid.finish() for grid in self.all) if table]


def _span(value: str | None) -> int:
    """The value of a rowspan or colspan; 1 if it is missing or invalid."""
    value = (value or "1").strip()
    return min(int(value), MAX_COLUMNS) if value.isascii() and value.isdigit() and len(value) < 10 else 1


def _pipe_tables(text: str) -> list[tuple[int, list[list[str]]]]:
    """(position, table) of each markdown pipe table."""
    lines, starts, position = text.split("\n"), [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    found, i = [], 1
    while i < len(lines):
        header, rule = _pipe_cells(lines[i - 1]), lines[i].strip()
        both = "|" in lines[i - 1] and "|" in rule
        if both and _RULE.fullmatch(rule) and len(_pipe_cells(rule)) == len(header):
            first, rows = i - 1, [header]
            i += 1
            while i < len(lines) and "|" in lines[i]:
                row = _pipe_cells(lines[i])[: len(header)]
                rows.append(row + [""] * (len(header) - len(row)))
                i += 1
            found.append((starts[first], rows))
        i += 1
    return found


def _pipe_cells(line: str) -> list[str]:
    """The cells of a pipe row; "\\|" is a pipe inside a cell."""
    line = line.strip().removeprefix("|")
    if line.endswith("|") and not line.endswith("\\|"):
        line = line[:-1]
    return [" ".join(cell.replace("\\|", "|").split()) for cell in re.split(r"(?<!\\)\|", line)]
