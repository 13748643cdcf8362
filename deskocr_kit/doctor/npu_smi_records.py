"""Records of the `npu-smi` parser: chips, their processes, and the words and numbers in a cell."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field

ABSENT = {"", "-", "NA", "N/A", "--"}
# Limits for text that others made. The largest machine has 16 cards of 4 chips.
CHIPS, PROCESSES, PAGES = 256, 1024, 512
WORD, DIGITS = 120, 15  # characters of a name, and of a number (more would exceed a float's precision)


@dataclass
class Process:
    pid: int
    name: str | None  # None for a process outside the container
    memory_mib: int | None


@dataclass
class Chip:
    """One compute die. Memory in MiB (npu-smi calls 2**20 bytes "MB"), power in W, temperature in C."""

    id: int | None
    chip: int = 0
    name: str | None = None
    health: str | None = None
    phy_id: int | None = None
    logic_id: int | None = None
    bus_id: str | None = None
    power_w: float | None = None
    temp_c: float | None = None
    aicore_percent: float | None = None
    hbm_used_mib: int | None = None
    hbm_total_mib: int | None = None
    memory_used_mib: int | None = (
        None  # DDR of the card: the only memory of a 310, in addition to HBM on a first 910
    )
    memory_total_mib: int | None = None
    processes: list[Process] = field(default_factory=list)

    @property
    def free_mib(self) -> int | None:
        """Free device memory in MiB: of the HBM if there is one, else of the DDR."""
        if self.hbm_total_mib:
            return None if self.hbm_used_mib is None else self.hbm_total_mib - self.hbm_used_mib
        if self.memory_total_mib and self.memory_used_mib is not None:
            return self.memory_total_mib - self.memory_used_mib
        return None

    def as_dict(self) -> dict:
        out = asdict(self)
        out["hbm_free_mib"] = self.free_mib if self.hbm_total_mib else None
        out["free_mib"] = self.free_mib
        return out


@dataclass
class NpuSmi:
    version: str | None = None
    chips: list[Chip] = field(default_factory=list)
    details: list[dict] = field(default_factory=list)  # the `-t` pages, one dict per chip, names as printed
    card_count: int | None = None
    complaint: str | None = (
        None  # the line npu-smi printed instead of a table, e.g. "dcmi module initialize failed"
    )


def to_int(text: str | None) -> int | None:
    number = to_float(text)
    return None if number is None else int(number)


def to_float(text: str | None) -> float | None:
    if text is None or text.strip().upper() in ABSENT:
        return None
    match = re.match(r"-?\d+(\.\d+)?", text.strip()[:DIGITS])
    return float(match.group()) if match else None


def to_word(text: str | None) -> str | None:
    return None if text is None or text.strip().upper() in ABSENT else text.strip()[:WORD]
