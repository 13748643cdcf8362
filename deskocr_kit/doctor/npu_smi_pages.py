"""Parse the `key : value` pages of npu-smi: `info -l`, `-m`, and `-t board|usages|memory|power|...`.

Two details need care. `Chip ID` ends a block in most pages and begins it in others. A page requested for one
card (`-i 0`) may not name that card.
"""

from __future__ import annotations

import re

from .npu_smi_records import Chip, NpuSmi, Process, to_float, to_int, to_word

PAIR = re.compile(r"^\s*([A-Za-z][\w ()%/.-]*?)\s*:(?:\s+(.*?))?\s*$")
CARD_KEYS = {"NPU ID", "Chip Count"}  # the head of a page: it describes the card, not one of its chips


def merge(out: NpuSmi, prose: str) -> None:
    """Add the content of the pages in `prose` to `out`: new chips, or fields that the table lacks."""
    for row in _mapping(prose):
        chip = _chip(out, row["NPU ID"], row["Chip ID"])
        chip.logic_id = row.get("Chip Logic ID", chip.logic_id)
        chip.phy_id = row.get("Chip Phy-ID", chip.phy_id)
        chip.name = chip.name or row.get("Chip Name")
    total = re.search(r"^\s*Total Count\s*:\s*(\d+)", prose, re.M)
    out.card_count = int(total.group(1)) if total else out.card_count
    for card, block in _blocks(prose):
        if block.get("Chip Name", "").upper() == "MCU":  # the card's controller, not a compute die
            continue
        number = block.get("Chip ID", "")
        known_card = card is not None or len({c.id for c in out.chips}) <= 1
        if not known_card:
            out.details.append(block)
            continue
        if card is None and not number and not out.chips and not _describes_a_chip(block):
            continue  # "npu-smi: error while loading shared libraries" is not a card
        chip = _chip(out, card, int(number) if number.isdigit() else 0)
        _fill(chip, block)
        if len(block) > len(CARD_KEYS):
            out.details.append({"npu": chip.id, "chip": chip.chip, **block})


def _chip(out: NpuSmi, card: int | None, number: int) -> Chip:
    for chip in out.chips:
        if chip.chip == number and (chip.id == card or card is None or chip.id is None):
            chip.id = card if chip.id is None else chip.id
            return chip
    out.chips.append(Chip(id=card, chip=number))
    return out.chips[-1]


def _mapping(prose: str) -> list[dict]:
    """Rows of `npu-smi info -m` with a real chip id and logic id; the MCU of a card has "-" there."""
    rows, titles = [], []
    for line in prose.splitlines():
        fields = re.split(r"\s{2,}|\t", line.strip())
        if fields[:2] == ["NPU ID", "Chip ID"]:
            titles = fields
        elif re.match(r"\s*NPU ID\s+Chip ID\s+Chip Logic ID", line):  # copied with its blanks squeezed
            titles = re.findall(r"NPU ID|Chip ID|Chip Logic ID|Chip Phy-ID|Chip Name", line)
        elif titles and re.match(r"\s*\d+\s+\d+\s+(\d+|-)\b", line + " "):
            fields = line.split(None, len(titles) - 1)
            row = dict(zip(titles, fields, strict=False))
            if row.get("Chip Name", "").strip().upper() == "MCU" or row.get("Chip Logic ID") == "-":
                continue
            rows.append({k: int(v) if v.strip().isdigit() else v.strip() for k, v in row.items()})
        elif line.strip() and titles:
            titles = []
    return rows


def _blocks(prose: str) -> list[tuple[int | None, dict[str, str]]]:
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

    for line in prose.splitlines():
        process = re.search(
            r"Process id\s*:\s*(\d+)\s+Process name\s*:\s*(.*?)\s*Process memory\(MB\)\s*:\s*(\d+)",
            line,
            re.I,
        )
        if process:
            current["process " + process.group(1)] = f"{process.group(3)} {process.group(2)}"
            continue
        pair = PAIR.match(line)
        if not pair:
            # A blank line ends a block, but not the head of a page, where a blank line follows the card.
            if not line.strip() and set(current) - CARD_KEYS:
                close()
            continue
        key, value = re.sub(r"\s+", " ", pair.group(1)), pair.group(2) or ""
        if key == "NPU ID":
            close()
            card = int(value) if value.isdigit() else None
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
