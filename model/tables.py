"""Parse HTML and markdown tables in the model's text into rows of cells."""

from __future__ import annotations

import csv
import io
import re

from .html_tables import EMPTY, MAX_CELLS, MAX_TABLES, Cell, Room, Table, html_tables

_DASHES = re.compile(r":?-+:?")
_PIPE = re.compile(r"(?<!\\)\|")
_FORMULA = "=+-@\t\r\n＝＋－＠"
_NUMBER = re.compile(r"[-+]?[$€£¥]?\s?\d[\d.,\s]*%?|[-+]?\.?\d+([eE][-+]?\d+)?%?|[-+]")


def tables(text: str) -> list[list[list[str]]]:
    """All tables of a text in reading order: table -> rows -> cells (str, white space collapsed).

    HTML: entities are decoded; the text of a cell with rowspan or colspan is repeated in every cell covered;
    an unclosed table ends with the text; a table within a cell is a table of its own; a "<" that is not part
    of a tag of a closed list is text. Markdown: pipe tables with a rule below the header. All rows of a table
    have the same length; short ones are filled with "".

    At most MAX_TABLES tables, with MAX_CELLS cells and MAX_CHARACTERS characters together; `find_tables` also
    returns what was left out.
    """
    return [[[cell.text for cell in row] for row in table] for table in located_tables(text)]


def located_tables(text: str) -> list[Table]:
    """As `tables`, with the place of each cell. A repeated cell has the place of its source."""
    return find_tables(text)[0]


def find_tables(text: str) -> tuple[list[Table], list[str]]:
    """The tables with the place of each cell, and what was left out, one line each ([]: nothing)."""
    room = Room()
    found, regions = html_tables(text, room)
    pieces, position = [], 0
    for start, end in regions:  # blank out the HTML, so that its pipes are not parsed as markdown
        pieces += [text[position:start], re.sub(r"[^\n]", " ", text[start:end])]
        position = end
    found += _pipe_tables("".join([*pieces, text[position:]]), room)
    if room.tables_over:
        room.cut.append(f"{room.tables_over:,} tables were left out: more than {MAX_TABLES} on the page")
    return [table for _, table in sorted(found, key=lambda item: item[0])], room.cut


def to_csv(table: list[list[str]]) -> str:
    """A table as CSV (RFC 4180 quoting, "\\n" line ends), safe for spreadsheets (see `csv_safe`)."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([csv_safe(cell) for cell in row] for row in table)
    return file.getvalue()


def csv_safe(cell: str) -> str:
    """Add an apostrophe to a cell that a spreadsheet would run as a formula; numbers (-5%) are unchanged.

    Anyone can make a page: `=HYPERLINK(...)` on it must not become a live formula. Spreadsheets skip blanks
    and characters without a shape before the sign, so they are skipped here too. NUL is removed: it ends the
    cell, or the file, for some of them.
    """
    cell = cell.replace("\0", "")
    first = next((c for c in cell if c in _FORMULA or _has_shape(c)), "")
    if first and first in _FORMULA and not _NUMBER.fullmatch(cell.strip()):
        return "'" + cell
    return cell


def _has_shape(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in _SHAPELESS


# Printable for Python, invisible on the screen: fillers, variation selectors, the blank of Braille.
_SHAPELESS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))


def _pipe_tables(text: str, room: Room) -> list[tuple[int, Table]]:
    """(position, table) of each markdown pipe table."""
    lines, starts, position = text.split("\n"), [], 0
    for line in lines:
        starts.append(position)
        position += len(line) + 1
    found, i = [], 1
    while i < len(lines):
        if not ("|" in lines[i - 1] and "|" in lines[i] and lines[i].lstrip()[:1] in "|:-"):
            i += 1
            continue
        header, rule = _pipe_cells(lines[i - 1], starts[i - 1]), _pipe_cells(lines[i])
        if len(rule) != len(header) or not all(_DASHES.fullmatch(cell.text) for cell in rule):
            i += 1
            continue
        first, rows = i - 1, [header]
        i += 1
        while i < len(lines) and "|" in lines[i]:
            if len(rows) * len(header) <= MAX_CELLS:  # one row more than fits, so that the cut is noted
                row = _pipe_cells(lines[i], starts[i])[: len(header)]
                rows.append(row + [EMPTY] * (len(header) - len(row)))
            i += 1
        if kept := room.fitting(rows, starts[first]):
            found.append((starts[first], kept))
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
    ends = [*(pipe.start() for pipe in _PIPE.finditer(line)), len(line)]
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [
        Cell(" ".join(line[a:b].replace("\\|", "|").split()), (offset + a, offset + b))
        for a, b in zip(starts, ends, strict=True)
    ]
