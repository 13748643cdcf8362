"""Position tables, resized once per size on the host in fp32 instead of in every forward pass.

Antialiased bicubic and 1-D linear interpolation depend only on the size of the image. Both functions take a
table and a side. A result is cached until the table or the result changes, or the table is freed. Changes are
seen by the version counters of the tensors, which `table.data.mul_(…)` does not increment.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ..slots import relative_table, resize_grid

_cache: dict[tuple, tuple[weakref.ref, Tensor, int]] = {}  # (storage of the table, result, version)


def cached_grid(table: Tensor, side: int) -> Tensor:
    """Cached model.slots.resize_grid: (1, s, s, d) -> (1, side, side, d)."""
    return table if table.shape[1] == side else _cached(resize_grid, table, side)


def cached_relative_table(table: Tensor, side: int) -> Tensor:
    """Cached model.slots.relative_table: (2s-1, k) -> (side, side, k), indexed by [query, key]."""
    return _cached(relative_table, table, side)


def _cached(resize: Callable[[Tensor, int], Tensor], table: Tensor, side: int) -> Tensor:
    needs_grad = torch.is_grad_enabled() and table.requires_grad
    # Inference tensors have no version counter, fake tensors have no values.
    if needs_grad or torch.is_inference(table) or isinstance(table, FakeTensor):
        return resize(table, side)
    storage = table.untyped_storage()
    key = (
        resize.__name__, side, storage._cdata, table.storage_offset(), table.shape, table.stride(),
        table.dtype, table._version,
    )  # fmt: skip
    found = _cache.get(key)
    if found is not None and found[0]() is storage and found[1]._version == found[2]:
        return found[1]
    indexed_only = resize is relative_table and len(table) == 2 * side - 1  # no need to move it to the host
    with torch.inference_mode(False), torch.no_grad():  # a later training run may use the same result
        try:
            source = table.detach() if indexed_only else table.detach().cpu()
        except NotImplementedError:  # a meta tensor outside a dry census, which replaces this copy
            return resize(table, side)
        result = resize(source, side).to(table.device)
    for old, (alive, *_) in list(_cache.items()):  # a copy: other threads use the cache too
        if alive() is None or old[:-1] == key[:-1]:
            _cache.pop(old, None)
    _cache[key] = (weakref.ref(storage), result, result._version)
    return result
