"""Performance of chips: ranges with sources from ascend/data/chips.json, or this CPU, measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..device.dtypes import find_dtype

TABLE = Path(__file__).parents[1] / "ascend" / "data" / "chips.json"
ROUNDS = 7


@dataclass(frozen=True)
class Quantity:
    """A range, its source, and its confidence: low, medium or high confidence, given, measured."""

    low: float
    high: float
    source: str
    confidence: str

    def __post_init__(self):
        if not 0 < self.low <= self.high:
            raise ValueError(f"expected positive figures, low <= high, got {self.low:g}..{self.high:g}")


@dataclass(frozen=True)
class Chip:
    """peak: {dtype: FLOP/s}, bandwidth: bytes/s, launch: seconds per operator; None: not published."""

    name: str
    peak: dict[str, Quantity | None]
    bandwidth: Quantity
    launch: Quantity | None

    def with_launch(self, low_us: float, high_us: float) -> Chip:
        """The same chip with another launch cost, in microseconds."""
        return replace(self, launch=Quantity(low_us / 1e6, high_us / 1e6, "given by you", "given"))


@cache
def table() -> dict:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def names() -> list[str]:
    return list(table()["chips"])


def find(name: str) -> Chip:
    """A chip of the table. Raises ValueError, with the known names, for another name."""
    known = {each.lower(): each for each in names()}
    name = known.get(name.lower().removeprefix("ascend"), name)
    if name not in table()["chips"]:
        raise ValueError(f"unknown chip {name!r}: use {', '.join(names())}, or cpu (measured here)")
    row = table()["chips"][name]
    bandwidth = _quantity(row["bandwidth_gbs"], 1e9)
    assert bandwidth is not None  # the table has it for every chip
    return Chip(
        name,
        {dtype: _quantity(found, 1e12) for dtype, found in row["peak_tflops"].items()},
        bandwidth,
        _quantity(row["launch_us"], 1e-6),
    )


def _quantity(found: dict | None, unit: float) -> Quantity | None:
    if found is None:
        return None
    source = "; ".join(table()["sources"][key] for key in found["source"])
    return Quantity(found["low"] * unit, found["high"] * unit, source, found["confidence"] + " confidence")


def measured_cpu(dtype: str = "fp32", touched: int = 64 << 20) -> Chip:
    """This CPU with one thread, in processor time, which does not depend on other users of the machine.

    touched: bytes that a step reads. A small network fits the caches, so its bandwidth is measured there.
    """
    import torch

    kind, threads = find_dtype(dtype), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        n = 1024 if kind is torch.float32 else 384  # half precision is emulated on many CPUs
        square, row = torch.ones(n, n, dtype=kind), torch.ones(1, 64, dtype=kind)
        memory = torch.ones(max(touched, 1 << 20) // 4)
        rate = [2 * n**3 / seconds for seconds in _seconds(lambda: square @ square)]
        speed = [memory.nbytes / seconds for seconds in _seconds(memory.sum)]
        weight = torch.ones(64, 64, dtype=kind)
        start = _seconds(lambda: row.add_(0), calls=500)
        heavy = _seconds(lambda: row @ weight, calls=500)
    finally:
        torch.set_num_threads(threads)
    here = "measured on this CPU, one thread, processor time"
    make = lambda low, high: Quantity(low, high, here, "measured")  # noqa: E731
    return Chip(
        "cpu",
        {dtype: make(min(rate), max(rate))},
        make(min(speed), max(speed)),
        make(min(start), max(min(start), min(heavy))),
    )


def _seconds(work: Callable[[], object], calls: int = 1) -> list[float]:
    """Processor seconds of one call, for each of ROUNDS rounds of at least `calls` calls and 10 ms."""
    work()
    taken = []
    for _ in range(ROUNDS):
        done, begin = 0, time.process_time()
        while (used := time.process_time() - begin) < 0.01 or done < calls:
            for _ in range(calls):
                work()
            done += calls
        taken.append(used / done)
    return taken
