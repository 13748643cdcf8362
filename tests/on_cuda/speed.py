"""TTFT and TPOT of one model in several forms, from whole requests of three lengths.

Nothing is timed inside a request, so that the host may run ahead of the device as it does in use:

    TTFT       a request of one token
    TPOT       (a request of 1 + START + n tokens - one of 1 + START tokens) / n
    recording  what a request of 1 + START tokens takes beyond TTFT and START tokens: a graph is recorded then
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deskocr_kit.benchmark.limits import best
from deskocr_kit.device import Timer, free_cache, is_out_of_memory

from .budget import Deadline

START = 8  # tokens before those that are timed
Request = Callable[[int], object]  # a function of the number of new tokens


@dataclass(frozen=True)
class Form:
    """A way to decode. request: makes a request; new: tokens to time; theirs: not our code."""

    name: str
    request: Callable[[], Request]
    new: int
    theirs: bool = False


def time_forms(
    forms: list[Form], device: torch.device, batch: int, rounds: int, deadline: Deadline
) -> list[dict]:
    """One row per form, in their order; a form for which no time is left is named and not measured."""
    rows = []
    for form in forms:
        row: dict = {"form": form.name, "batch": batch}
        if deadline.left() <= 0:
            row["why"] = "dropped: no time was left"
        else:
            try:
                row |= time_request(form.request(), device, form.new, rounds)
            except Exception as error:  # a form that cannot run here leaves the others
                row["why"] = f"{type(error).__name__}: {str(error).strip()[:200]}"
                expected = is_out_of_memory(error) or isinstance(error, (ImportError, NotImplementedError))
                if not expected and not form.theirs:
                    row["holds"] = False
            else:
                row["tokens_per_second"] = batch / row["tpot"] if row["tpot"] > 0 else None
        free_cache(device)
        rows.append(row)
    return rows


def time_request(
    request: Request, device: torch.device, new: int, rounds: int, timed: Callable | None = None
) -> dict:
    """{ttft, tpot, recording}, in seconds: medians of `rounds`, after one round that does not count.

    In that round Triton compiles each kernel, once more for sizes that 16 divides.
    """

    def seconds(call: Request, tokens: int) -> float:
        with Timer(device) as timer:
            call(tokens)
        return timer.seconds

    lengths, take = (1, 1 + START, 1 + START + new), timed or seconds
    taken = [[take(request, length) for length in lengths] for _ in range(1 + rounds)]
    first, some, every = (statistics.median(column) for column in zip(*taken[1:], strict=True))
    tpot = (every - some) / new
    return {"ttft": first, "tpot": tpot, "recording": some - first - START * tpot, "tokens": new}


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second, read and written, of a copy on the device: the best of several."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best(device, lambda: target.copy_(source))
