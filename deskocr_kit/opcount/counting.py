"""How much work a call gives a device: operators started, waits, bytes up and down, bytes held.

On the simulated NPU its own counters tell. Elsewhere the operators that PyTorch hands to the backend are
counted by a dispatch mode; the same rules say which of them are views, allocations or waits.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .. import simulator
from ..device import device_memory, is_simulated, reset_peak

WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount", "_unique",
    "_unique2", "unique_dim", "unique_consecutive", "item",
}  # fmt: skip
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_"}
ALLOCATES = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


@dataclass
class Counts:
    """Of one call. `extra_bytes`: the most that was held beyond what was held before; the result included."""

    launches: int = 0
    syncs: int = 0
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    fallbacks: int = 0
    ai_cpu: int = 0
    extra_bytes: int = 0


class _Operators(TorchDispatchMode):
    """Counts what reaches the backend, and the bytes of the tensors that it makes."""

    def __init__(self):
        super().__init__()
        self.counts, self.held, self.known = Counts(), 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in self._tensors((args, kwargs)):
            self.known.add(tensor.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if not func.is_view and name not in ALLOCATES and self._tensors((args, kwargs, result)):
            self.counts.launches += 1
        by_mask = name in BY_MASK and any(
            each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
        )
        if name in WAITS or by_mask:
            self.counts.syncs += 1
        if name in ("_to_copy", "copy_"):
            self._copied(args, result)
        for tensor in self._tensors(result):
            self._hold(tensor)
        return result

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

    def _copied(self, args: tuple, result: torch.Tensor) -> None:
        source = args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]
        if source.device.type == result.device.type:
            return
        if source.device.type == "cpu":
            self.counts.h2d_bytes += source.nbytes
        else:
            self.counts.d2h_bytes += source.nbytes
            self.counts.syncs += 1

    @staticmethod
    def _tensors(tree) -> list[torch.Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def counted(device: torch.device) -> Iterator[Counts]:
    """Counts of the block; final when it has ended."""
    counts = Counts()
    before = None if device.type == "cpu" else device_memory(device).allocated
    if is_simulated(device):
        with simulator.record(sites=False) as seen:
            yield counts
        for name in ("launches", "syncs", "h2d_bytes", "d2h_bytes", "fallbacks", "ai_cpu"):
            setattr(counts, name, getattr(seen, name))
        counts.extra_bytes = max(0, seen.peak_bytes - before)
        return
    if device.type != "cpu":
        reset_peak(device)
    with _Operators() as mode:
        yield counts
    vars(counts).update(vars(mode.counts))
    peak = None if device.type == "cpu" else device_memory(device).peak
    if peak is not None:
        counts.extra_bytes = max(0, peak - before)
