"""The work that a call gives a device: launches, host waits, bytes copied in both directions, bytes in use.

On the simulated NPU the counts come from its counters, on other devices from a dispatch mode. Both use the
same definition of a launch, a copy and a wait: see opcount/definition.py.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .. import simulator
from ..opcount import definition
from ..opcount.operator_mode import OperatorMode, tensors
from .memory_stats import device_memory, reset_peak
from .selection import is_simulated


@dataclass
class Counts:
    """The counts of one call. extra_bytes: largest growth of the memory in use, including the result."""

    launches: int = 0
    syncs: int = 0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    fallbacks: int = 0
    ai_cpu: int = 0
    extra_bytes: int = 0


class _Operators(OperatorMode):
    """Counts the operators of the device, and the bytes of the tensors that they make."""

    def __init__(self, device: torch.device):
        super().__init__()
        self.counts, self.held = Counts(), 0
        self.known: set[int] = set()  # keys of the storages
        self.device = device.type

    def answer(self, name: str, function, args: tuple, kwargs: dict):
        for tensor in tensors((args, kwargs)):
            self.known.add(tensor.untyped_storage()._cdata)
        return super().answer(name, function, args, kwargs)

    def seen(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        given, made = list(tensors((args, kwargs))), list(tensors(output))
        kind = definition.kind(name, function._schema, given, made, self.device)
        h2d, d2h = definition.copied(name, kind, args)
        self.counts.launches += kind == "launch"
        self.counts.syncs += definition.waits(name, kind, args, kwargs, output)
        self.counts.h2d_bytes += h2d
        self.counts.d2h_bytes += d2h
        for tensor in made:
            self._hold(tensor)

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self.known:
            return
        self.known.add(storage._cdata)
        size = storage.nbytes()
        self.held += size
        self.counts.extra_bytes = max(self.counts.extra_bytes, self.held)
        weakref.finalize(storage, self._let_go, storage._cdata, size)

    def _let_go(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size


@contextlib.contextmanager
def counted(device: torch.device) -> Iterator[Counts]:
    """The counts of the block; they are final at its end."""
    counts = Counts()
    before = 0 if device.type == "cpu" else device_memory(device).allocated
    if is_simulated(device):
        with simulator.record(sites=False) as seen:
            yield counts
        for name in ("launches", "syncs", "h2d_bytes", "d2h_bytes", "fallbacks", "ai_cpu"):
            setattr(counts, name, getattr(seen, name))
        counts.extra_bytes = max(0, seen.peak_bytes - before)
        return
    if device.type != "cpu":
        reset_peak(device)
    with _Operators(device) as mode:
        yield counts
    vars(counts).update(vars(mode.counts))
    peak = None if device.type == "cpu" else device_memory(device).peak
    if peak is not None:
        counts.extra_bytes = max(0, peak - before)
