"""Parse the output of `npu-smi`: the table of `npu-smi info` and the `key : value` pages of `-t`, `-l`, `-m`.

The tables differ by driver (20.x ... 26.x), card and container, so the parser does not count characters: it
splits a row at its bars and reads a cell by the column names in the header above it. Missing values stay
None. One `Chip` is one compute die: a 910C (A3) card has two, a 310 card has four.
"""

from __future__ import annotations

import re

from ..ascend.log_text import without_escapes
from . import npu_smi_pages
from .npu_smi_records import ABSENT, CHIPS, PROCESSES, Chip, NpuSmi, Process, to_float, to_int, to_word

BUS_ID = re.compile(r"^[0-9a-fx]{4,8}:[0-9a-fx]{2}:[0-9a-fx]{2}\.[0-9a-fx]$", re.I)
VALUE = re.compile(r"(?P<used>[\w.-]{1,20})\s{0,20}/\s{0,20}(?P<total>[\w.-]{1,20})|(?P<one>[^\s/]+)")
LINE = 1000  # characters of a line; a row of the widest table has 120
_COMPLAINT = re.compile(r"\b(?:fail(?:ed|ure)?|error|denied|not found|cannot|no such|incorrect)\b", re.I)
# Columns of a pasted table without its header (the order since driver 22).
CARD_COLUMNS = [("power", 1), ("temp", 13), ("hugepages-usage", 31)]
CHIP_COLUMNS = [("aicore", 1), ("memory-usage", 13), ("hbm-usage", 31)]


def _cells(line: str) -> list[str] | None:
    """The cells of a table row; None for rulers and prose. Text before the first bar is dropped."""
    start, end = line.find("|"), line.rfind("|")
    if start < 0 or end <= start:
        return None
    return [cell.rstrip() for cell in line[start + 1 : end].split("|")]


def _values(cell: str, columns: list[tuple[str, int]]) -> dict[str, tuple[str | None, str | None]]:
    """Parse "0   0 / 0   21784/ 65536" by the header's columns -> {column: (value or used, total)}.

    As many values as columns are assigned in order. Of fewer, each goes to the column whose title starts
    nearest, because a blank field keeps its width on the screen.
    """
    found = []
    for match in VALUE.finditer(cell):
        used = match["used"] if match["used"] is not None else match["one"]
        found.append((match.start(), used, match["total"]))
    names = [name for name, _ in columns]
    if len(found) == len(columns):
        return {name: (used, total) for name, (_, used, total) in zip(names, found, strict=True)}
    out: dict[str, tuple[str | None, str | None]] = {}
    for position, used, total in found:
        wants_pair = total is not None
        fitting = [c for c in columns if c[0] not in out and ("usage" in c[0]) == wants_pair] or [
            c for c in columns if c[0] not in out
        ]
        if fitting:
            out[min(fitting, key=lambda c: abs(c[1] - position))[0]] = (used, total)
    return out


def _columns(cell: str) -> list[tuple[str, int]]:
    """[(short lower-case name, position)] of a header: "AICore(%)  HBM-Usage(MB)" -> aicore, hbm-usage."""
    return [(m.group(1).lower(), m.start()) for m in re.finditer(r"([A-Za-z-]{1,40})\s{0,20}\(", cell)]


class _Table:
    """State of the parser in the output of `npu-smi info`."""

    def __init__(self) -> None:
        self.section = ""  # "", "devices" or "processes"
        self.card_columns = CARD_COLUMNS
        self.chip_columns = CHIP_COLUMNS
        self.chip_titles = ""
        self.process_titles: list[str] = []
        self.pending: Chip | None = None  # a card row whose chip row has not been read yet
        self.chips: list[Chip] = []
        self.processes = 0

    def header(self, cells: list[str]) -> bool:
        """Store the column titles and return True if this row is a header."""
        first = cells[0].split()
        titles = " ".join(cells).lower()
        if first[:1] == ["NPU"] and "process id" in titles:
            self.flush()
            self.section, self.process_titles = "processes", [cell.strip().lower() for cell in cells]
        elif first[:1] == ["NPU"] and "health" in titles:
            self.flush()
            self.section, self.card_columns = "devices", _columns(cells[-1])
        elif first[:1] == ["Chip"] and "bus-id" in titles:
            self.chip_columns, self.chip_titles = _columns(cells[-1]), cells[0].lower()
        else:
            return False
        return True

    def flush(self) -> None:
        if self.pending is not None:
            self.keep(self.pending)
            self.pending = None

    def keep(self, chip: Chip) -> None:
        """Add a chip. In a table printed twice (`watch`, a long log) the later row replaces the earlier."""
        if (chip.name or "").upper() == "MCU":  # the card's controller, not a compute die
            return
        key = (chip.id, chip.chip, chip.bus_id)
        self.chips = [c for c in self.chips if c.id is None or (c.id, c.chip, c.bus_id) != key]
        if len(self.chips) < CHIPS:
            self.chips.append(chip)

    def device_row(self, cells: list[str]) -> None:
        if len(cells) < 2:
            return
        first, middle = cells[0].split(None, 1), cells[1].strip()
        # The bus id decides which of the two lines this is; without one ("NA" on a 310B) the order decides.
        is_chip_row = bool(BUS_ID.match(middle)) or (self.pending is not None and middle.upper() in ABSENT)
        if not first and not is_chip_row:
            return
        if not is_chip_row:
            self.flush()
            values = _values(cells[-1], self.card_columns) if len(cells) > 2 else {}
            number = to_int(first[0]) if first[0].isdecimal() else None
            self.pending = Chip(
                id=number,
                name=to_word(cells[0]) if number is None else to_word(first[1]) if len(first) > 1 else None,
                health=to_word(middle),
                power_w=to_float(values.get("power", (None,))[0]),
                temp_c=to_float(values.get("temp", (None,))[0]),
            )
            return
        chip, self.pending = self.pending or Chip(id=None), None
        values = _values(cells[-1], self.chip_columns) if len(cells) > 2 else {}
        memory, hbm = values.get("memory-usage", (None, None)), values.get("hbm-usage", (None, None))
        chip.chip = (to_int(first[0]) or 0) if first and first[0].isdecimal() else 0
        chip.bus_id = to_word(middle)
        if len(first) > 1:
            number = to_int(first[1])
            if "phy" in self.chip_titles:
                chip.phy_id = number
            else:
                chip.logic_id = number
        chip.aicore_percent = to_float(values.get("aicore", (None,))[0])
        chip.memory_used_mib, chip.memory_total_mib = to_int(memory[0]), to_int(memory[1])
        chip.hbm_used_mib, chip.hbm_total_mib = to_int(hbm[0]), to_int(hbm[1])
        self.keep(chip)

    def process_row(self, cells: list[str]) -> None:
        if len(cells) < 2:
            return  # "No running processes found in NPU 5"
        owner, pid = cells[0].split(), to_int(cells[1])
        if pid is None or not owner or not owner[0].isdecimal() or self.processes >= PROCESSES:
            return
        self.processes += 1
        by_title = dict(zip(self.process_titles, cells, strict=False))
        if len(cells) != len(self.process_titles):  # no header, or a bar in the process name
            by_title = {"process name": cells[2] if len(cells) > 3 else "", "process memory(mb)": cells[-1]}
        memory = next((cell for title, cell in by_title.items() if "memory" in title), None)
        process = Process(
            pid, to_word(by_title.get("process name")), to_int(memory) if len(cells) > 2 else None
        )
        card, number = to_int(owner[0]), to_int(owner[1] if len(owner) > 1 else None) or 0
        home = [c for c in self.chips if c.id == card and c.chip == number]
        if not home:  # a process table without its device table, or a card that was lost meanwhile
            home = [Chip(id=card, chip=number)]
            self.chips += home[: CHIPS - len(self.chips)]
        home[0].processes.append(process)


def parse(text: str) -> NpuSmi:
    """Parse any mixture of npu-smi outputs, in linear time. Never raises: unreadable fields stay None."""
    out, table, prose = NpuSmi(), _Table(), []
    text = without_escapes(text.replace("\r", "")).translate({ord(bar): "|" for bar in "│┃｜"})
    lines = [line[:LINE].expandtabs(8) for line in text.splitlines()]
    for line in lines:
        cells = _cells(line)
        if cells is None:
            prose.append(line)
        elif banner := re.search(r"npu-smi\s{1,40}(\S{1,80})", line):
            out.version = banner.group(1)
        elif table.header(cells):
            continue
        elif table.section == "processes" or (len(cells) > 3 and cells[1].strip().isdigit()):
            table.process_row(cells)
        else:
            table.device_row(cells)
    table.flush()
    out.chips = table.chips
    npu_smi_pages.merge(out, prose)
    if not out.chips and any(_COMPLAINT.search(line) for line in lines):
        out.complaint = "\n".join([line.strip() for line in lines if line.strip()][:4])
    return out
