"""Read a group of pages, and decide what happens to those that fail.

    a group fails                  each of its pages is read alone; a page that fails alone, after a failure
                                   in a group or alone, is set aside
    out of memory                  the group is halved, and no later group is larger
    a text loops or is cut off     the page is read once more with a stronger n-gram guard; the better one
                                   of the two texts is kept
    an answer cannot be used       (of a serving engine) the page is read again with other settings

A device may have settings of its own for the further attempts: `otherwise`. A page that is set aside has at
most TRIES failures. Every attempt is recorded in `Item.tries`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..reading.repetition import loops
from .faults import Fault

if TYPE_CHECKING:
    from model.inference import Reading

    from ..reading.pages import Page

TRIES = 2  # failures of a page, in a group or alone, until it is set aside
GUARD = 20  # n-gram size of the second attempt where the first had no guard; that of the original's scripts


@dataclass
class Item:
    """A page on its way through the pipeline."""

    key: str  # absolute path of its file
    page: Page
    sha256: str  # of the file
    views: Any = None  # model.tiling.Views
    cache_key: str = ""
    cached: Reading | None = None
    tries: list[dict] = field(default_factory=list)
    waits: list[dict] = field(default_factory=list)  # requests of the attempt that runs which had no answer

    @property
    def shape(self) -> tuple:
        """Pages of one shape need no padding in a batch."""
        return self.views.grid if self.views is not None else ()


class Device(Protocol):
    """What reads pages: devices.LocalDevice or devices.WorkerDevice."""

    settings: dict

    def read(self, items: Sequence[Item], guard: dict | None = None) -> list[Reading]:
        """Raises Fault, and CannotContinue if no page can be read here any more."""


class BatchSize:
    """The number of pages per batch, which only shrinks. The devices of a run share it."""

    def __init__(self, size: int):
        self.size, self.lock = size, threading.Lock()

    def halve(self, failed: int) -> None:
        """A batch of `failed` pages did not fit."""
        with self.lock:
            self.size = max(1, min(self.size, failed // 2))


def read_group(
    device: Device, items: Sequence[Item], limit: BatchSize
) -> Iterator[tuple[Item, Reading | Fault]]:
    """Yield each page once, with its reading, or with the fault for which it is set aside."""
    groups = [list(items)]
    while groups:
        group = groups.pop()
        if len(group) > limit.size:
            groups += _parts(group, limit.size)
            continue
        start = time.perf_counter()
        guard = _after_answers(device, group)
        how = {"guard": guard} if guard is not None else {}
        try:
            readings = device.read(group, guard)
        except Fault as fault:
            seconds = (time.perf_counter() - start) / len(group)
            for item in group:
                item.tries.append(
                    {
                        **how,
                        **_waits(item),
                        "pages": len(group),
                        "outcome": fault.kind,
                        "error": str(fault),
                        "seconds": round(seconds, 3),
                    }
                )
            if len(group) > 1:
                if fault.kind == "memory":
                    limit.halve(len(group))
                groups += _parts(group, limit.size if fault.kind == "memory" else 1)
            elif len(group[0].tries) < TRIES:
                groups.append(group)
            else:
                yield group[0], fault
            continue
        for item, reading in zip(group, readings, strict=True):
            item.tries.append({**how, **_waits(item), **_attempt(reading, len(group))})
        yield from _read_again(device, group, readings)


def _parts(group: list[Item], size: int) -> list[list[Item]]:
    """Parts of at most `size` pages, the last first: `groups` is a stack."""
    return [group[at : at + size] for at in range(0, len(group), size)][::-1]


def _after_answers(device: Device, group: list[Item]) -> dict | None:
    """The settings for a page after answers that could not be used; None: the device's own."""
    answers = sum(each["outcome"] == "answer" for each in group[0].tries) if len(group) == 1 else 0
    ways = _ways(device, group) if answers else []
    return ways[min(answers, len(ways)) - 1] if ways else None


def _ways(device: Device, group: list[Item]) -> list[dict]:
    """The settings of further attempts, in order."""
    otherwise = getattr(device, "otherwise", None)
    return [stronger(device.settings)] if otherwise is None else otherwise(group)


def _read_again(device: Device, group: list[Item], readings: list[Reading]) -> Iterator[tuple[Item, Reading]]:
    """The pages of a group, after further attempts for those that loop or are cut off."""
    kept = dict(enumerate(readings))
    for guard in _ways(device, group) if any(map(fault_in, readings)) else ():
        bad = [i for i, reading in kept.items() if fault_in(reading)]
        if not bad:
            break
        try:
            second = device.read([group[i] for i in bad], guard)
        except Fault as fault:  # the first text is better than none
            for i in bad:
                failed = {"pages": len(bad), "guard": guard, "outcome": fault.kind, "error": str(fault)}
                group[i].tries.append({**_waits(group[i]), **failed})
        else:
            for i, reading in zip(bad, second, strict=True):
                group[i].tries.append({"guard": guard, **_waits(group[i]), **_attempt(reading, len(bad))})
                kept[i] = min(kept[i], reading, key=lambda each: FAULTS.index(fault_in(each)))
    for i, item in enumerate(group):
        yield item, kept[i]


def _waits(item: Item) -> dict:
    """What was tried within an attempt, once."""
    waits, item.waits = item.waits, []
    return {"waits": waits} if waits else {}


FAULTS = ("", "truncated", "loop")  # from good to bad; the first of equals is kept


def fault_in(reading: Reading) -> str:
    """ "loop" for a text that ends in one, "truncated" for one that was cut off, else ""."""
    return "loop" if loops(reading.ids) else "truncated" if reading.truncated else ""


def stronger(settings: dict) -> dict:
    """The settings of the n-gram guard for a second attempt: half the size, over the whole sequence."""
    size = settings.get("no_repeat_ngram_size") or 0
    return {"no_repeat_ngram_size": max(4, size // 2) if size else GUARD, "ngram_window": None}


def _attempt(reading: Reading, pages: int) -> dict:
    return {
        "pages": pages,
        "outcome": fault_in(reading) or "done",
        "tokens": reading.new_tokens,
        "seconds": round(reading.seconds, 3),
    }
