"""Parse the `key : value` pages of npu-smi: `info -l`, `-m`, and `-t board|usages|memory|power|...`.

Two details need care. `Chip ID` ends a block in most pages and begins it in others. A page requested for one
card (`-i 0`) may not name that card.
"""

from __future__ import annotations

import re

from .npu_smi_records import CHIPS, PAGES, Chip, NpuSmi, Process, to_float, to_int, to_word

CARD_KEYS = {"NPU ID", "Chip Count"}  # the head of a page: it describes the card, not one of its chips
KEY = re.compile(r"[A-Za-z][\w ()%/.-]{0,80}\Z")
PROCESS = re.compile(
    r"Process id\s{0,40}:\s{0,40}(\d{1,12})\s{1,40}Process name\s{0,40}:(?P<name>.{0,200}?)"
    r"Process memory\(MB\)\s{0,40}:\s{0,40}(\d{1,12})",
    re.I,
)
TITLES = ("NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name")  # of `npu-smi info -m`


def merge(out: NpuSmi, prose: list[str]) -> None:
    """Add the content of pages, given as lines, to `out`: new chips, or fields that the table lacks."""
    for row in _mapping(prose):
        chip = _chip(out, row["NPU ID"], row["Chip ID"])
        chip.logic_id = row.get("Chip Logic ID", chip.logic_id)
        chip.phy_id = row.get("Chip Phy-ID", chip.phy_id)
        chip.name = chip.name or to_word(row.get("Chip Name"))
    for line in prose:
        name, mark, value = line.partition(":")
        if mark and name.strip() == "Total Count" and value.strip()[:1].isdecimal():
            out.card_count = min(to_int(value) or 0, CHIPS)
            break
    for card, block in _blocks(prose):
        if block.get("Chip Name", "").upper() == "MCU":  # the card's controller, not a compute die
            continue
        number = block.get("Chip ID", "")
        known_card = card is not None or len({c.id for c in out.chips}) <= 1
        if not known_card:
            out.details += [block][: PAGES - len(out.details)]
            continue
        if card is None and not number and not out.chips and not _describes_a_chip(block):
            continue  # "npu-smi: error while loading shared libraries" is not a card
        chip = _chip(out, card, to_int(number) or 0)
        _fill(chip, block)
        if len(block) > len(CARD_KEYS) and len(out.details) < PAGES:
            out.details.append({"npu": chip.id, "chip": chip.chip, **block})


def _chip(out: NpuSmi, card: int | None, number: int) -> Chip:
    for chip in out.chips:
        if chip.chip == number and (chip.id == card or card is None or chip.id is None):
            chip.id = card if chip.id is None else chip.id
            return chip
    chip = Chip(id=card, chip=number)
    if len(out.chips) < CHIPS:
        out.chips.append(chip)
    return chip


def _mapping(prose: list[str]) -> list[dict]:
    """Rows of `npu-smi info -m` with a chip id and a logic id.

    The MCU of a card and places without a chip have "-", "NA" or a word there; such rows are left out, and
    the table goes on. The generations differ in their columns, and in the blanks between them.
    """
    rows, titles = [], []
    for line in prose:
        if re.match(r"\s{0,40}NPU ID\s{1,40}Chip ID\s", line):
            titles = _titles(line)
            continue
        fields = line.split(None, len(titles) - 1) if titles else []
        if len(fields) < 2 or not fields[0].isdecimal():
            titles = titles if not line.strip() else []
            continue
        row = dict(zip(titles, fields, strict=False))
        numbers = {title: to_int(row[title]) for title in TITLES[:-1] if title in row}
        if row.get("Chip Name", "").strip().upper() == "MCU" or None in numbers.values():
            continue
        if len(fields) >= min(3, len(titles)):
            rows.append({**row, **numbers})
    return rows


def _titles(header: str) -> list[str]:
    """The titles of the columns; between two of them stand at least two blanks, unless they were squeezed."""
    titles = re.split(r"\s{2,40}", header.strip().replace("\t", "  "))
    if tuple(titles[:2]) != TITLES[:2]:
        titles = [title for title in TITLES if title in " ".join(header.split())]
    return titles


def _blocks(prose: list[str]) -> list[tuple[int | None, dict[str, str]]]:
    """Split the pages into (card id, fields of one chip)."""
    blocks: list[tuple[int | None, dict[str, str]]] = []
    card: int | None = None
    current: dict[str, str] = {}
    opened_by_chip = False

    def close() -> None:
        nonlocal current, opened_by_chip
        if current:
            blocks.append((card, current))
        current, opened_by_chip = {}, False

    for line in prose:
        if process := PROCESS.search(line):
            current["process " + process[1]] = f"{process[3]} {process['name'].strip()}"
            continue
        key, mark, value = line.partition(":")
        key, value = " ".join(key.split()), value.strip()
        if not mark or not KEY.match(key) or (value and not line.partition(":")[2][:1].isspace()):
            # A blank line ends a block, but not the head of a page, where a blank line follows the card.
            if not line.strip() and set(current) - CARD_KEYS:
                close()
            continue
        if key == "NPU ID":
            close()
            card = to_int(value) if value.isdecimal() else None
            current = {key: value}
        elif key == "Chip ID":
            if set(current) - CARD_KEYS and not opened_by_chip:
                current[key] = value
                close()
            else:
                close()
                current, opened_by_chip = {key: value}, True
        elif key != "Total Count":
            current[key] = value
    close()
    return blocks


def _describes_a_chip(block: dict[str, str]) -> bool:
    chip = Chip(id=None)
    _fill(chip, block)
    return chip != Chip(id=None)


def _fill(chip: Chip, block: dict[str, str]) -> None:
    def first(*names: str) -> str | None:
        return next((block[name] for name in names if to_word(block.get(name)) is not None), None)

    chip.name = chip.name or to_word(first("Chip Name", "Product Name", "Model"))
    chip.health = chip.health or to_word(first("Health", "Health Status"))
    chip.bus_id = chip.bus_id or to_word(first("PCIe Bus Info"))
    if chip.power_w is None:
        chip.power_w = to_float(first("NPU Real-time Power(W)", "Power Dissipation(W)"))
    if chip.temp_c is None:
        chip.temp_c = to_float(first("NPU Temperature (C)", "NPU Temperature(C)", "Temperature(C)"))
    if chip.aicore_percent is None:
        chip.aicore_percent = to_float(first("Aicore Usage Rate(%)"))
    if chip.hbm_total_mib is None:
        chip.hbm_total_mib = to_int(first("HBM Capacity(MB)"))
    if chip.memory_total_mib is None:
        chip.memory_total_mib = to_int(first("DDR Capacity(MB)"))
    rate = to_float(first("HBM Usage Rate(%)"))
    if chip.hbm_used_mib is None and chip.hbm_total_mib and rate is not None:
        chip.hbm_used_mib = round(chip.hbm_total_mib * rate / 100)  # the page rounds to whole per cent
    rate = to_float(first("DDR Usage Rate(%)"))
    if chip.memory_used_mib is None and chip.memory_total_mib and rate is not None:
        chip.memory_used_mib = round(chip.memory_total_mib * rate / 100)
    for key, value in block.items():
        if key.startswith("process "):
            memory, _, name = value.partition(" ")
            chip.processes.append(Process(int(key.split()[1]), to_word(name), to_int(memory)))
