"""Tables of the Ascend profiler and of msprof. Which table a file is, its columns decide, not its name.

Columns appear only when they were collected, and releases spell them differently, so names are compared
without case, blanks and underscores.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from .kernels import AI_CPU, TraceError

csv.field_size_limit(1 << 22)  # a call stack or a list of shapes in one cell
MISSING = {"", "n/a", "na", "none", "null", "-"}

#: {form: the columns that make it}; the first form whose columns are all there is taken.
FORMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "kernel_details": (("duration(us)", "taskduration(us)"), ("type", "optype", "name", "opname")),
    "op_statistic": (("optype",), ("count",), ("totaltime(us)",)),
    "operator_details": (("name",), ("deviceselfduration(us)",)),
    "step_trace_time": (("computing",), ("free",)),
    "api_statistic": (("apiname",), ("time(us)",), ("count",)),
    "memory_record": (
        ("component",),
        ("timestamp(us)",),
        ("totalallocated(mb)", "totalallocated(kb)"),
    ),
}


def column(name: str) -> str:
    """The name of a column for comparison: "Task Start Time(us)" -> "taskstarttime(us)"."""
    return re.sub(r"[\s_]+", "", name).lower()


def form_of(content: str) -> str | None:
    """The form of a table by its first line, or None."""
    try:
        names = {column(cell) for cell in next(csv.reader([re.split("[\r\n]", content, maxsplit=1)[0]]), [])}
    except csv.Error:
        return None
    for form, needed in FORMS.items():
        if all(any(option in names for option in options) for options in needed):
            return form
    return None


@dataclass
class Row:
    """One line of a table, read by column; the cells are stripped of tabs, blanks and stray quotes."""

    line: int
    cells: dict[str, str]

    def text(self, *names: str) -> str:
        """The first of these columns that has a value, or ""."""
        found = (self.cells.get(name, "") for name in names)
        return next((cell for cell in found if cell.lower() not in MISSING), "")

    def number(self, *names: str) -> Decimal | None:
        """The same as a finite number. Raises ValueError if the cell is another text."""
        cell = self.text(*names)
        return decimal(cell) if cell else None


def decimal(text: object) -> Decimal:
    """A finite number. Raises ValueError."""
    try:
        value = Decimal(str(text).strip())
    except InvalidOperation:
        raise ValueError(f"{str(text)[:40]!r} is no number") from None
    if not value.is_finite() or abs(value) > Decimal(10) ** 30:
        raise ValueError(f"{str(text)[:40]!r} is no usable number")
    return value


def rows_of(content: str, where: str, notes: list[str]) -> Iterator[Row]:
    """The rows of a table. A row with too few cells is skipped, and `notes` says so.

    Raises TraceError if there is no row below the head.
    """
    reader = csv.reader(io.StringIO(content, newline=""))
    short: list[int] = []
    seen = False
    try:
        names = [column(cell) for cell in next(reader, [])]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < len(names):
                short.append(reader.line_num)
                continue
            seen = True
            yield Row(reader.line_num, {n: clean(c) for n, c in zip(names, cells, strict=False)})
    except csv.Error as error:
        notes.append(f"{where}, line {reader.line_num}: {error}; the rest was skipped")
    if short:
        notes.append(f"{where}: skipped {skipped(short, reader.line_num)}")
    if not seen:
        raise TraceError(f"{where}: no complete row below the head; the profiler has written nothing yet")


def skipped(lines: list[int], last: int) -> str:
    """The skipped lines in words."""
    if lines == [last]:
        return f"the last row (line {last}), which is cut"
    shown = ", ".join(map(str, lines[:5])) + (", …" if len(lines) > 5 else "")
    return f"{len(lines)} row{'s' * (len(lines) > 1)} that cannot be used (line {shown})"


def clean(cell: str) -> str:
    return cell.strip().strip('"').strip()


def core_of(cell: str) -> str:
    """The unit that ran a kernel: "AI CPU", "AICPU" and "AI_CPU" are one."""
    name = re.sub(r"[\s_]+", "_", cell.strip()).upper()
    return AI_CPU if name in ("AI_CPU", "AICPU") else name


#: Bytes per element by the profiler's names of dtypes.
DTYPES = {
    "FLOAT": 4, "FP32": 4, "FLOAT32": 4, "FLOAT16": 2, "FP16": 2, "HALF": 2, "BF16": 2, "BFLOAT16": 2,
    "DT_BF16": 2, "DOUBLE": 8, "INT64": 8, "UINT64": 8, "INT32": 4, "UINT32": 4, "INT16": 2, "UINT16": 2,
    "INT8": 1, "UINT8": 1, "BOOL": 1, "COMPLEX64": 8, "COMPLEX128": 16,
}  # fmt: skip


def shapes_of(cell: str) -> list[list[int]]:
    """ "2;4096", "[2,4096]" and "2,4096;4096" as lists of sizes.

    msprof writes a semicolon between tensors and a comma between sizes; other releases write one shape with
    semicolons only, which only the number of dtypes shows (see `bytes_of`).
    """
    found = re.findall(r"\[([^\[\]]*)\]", cell) if "[" in cell else cell.split(";")
    shapes = []
    for part in found if cell else ():
        sizes = [each for each in re.split(r"[,;\s]+", part.strip()) if each]
        if all(each.isdigit() for each in sizes):
            shapes.append([int(each) for each in sizes])
    return shapes


def bytes_of(row: Row) -> int | None:
    """Bytes of the inputs and outputs of a kernel, from shapes and dtypes; None if they do not fit."""
    total = 0
    for side in ("input", "output"):
        shapes = shapes_of(row.text(f"{side}shapes"))
        kinds = [each.strip() for each in row.text(f"{side}datatypes").split(";") if each.strip()]
        if len(kinds) == 1 and all(len(shape) == 1 for shape in shapes):
            shapes = [[size for shape in shapes for size in shape]]
        if not kinds or len(kinds) != len(shapes):
            return None
        for shape, kind in zip(shapes, kinds, strict=True):
            size = DTYPES.get(kind.upper())
            if size is None:
                return None
            for each in shape:
                size *= each
            total += size
    return total or None
