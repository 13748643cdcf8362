"""Position tables resized once per size, on the host and in fp32, instead of at every forward.

Antialiased bicubic and 1-D linear interpolation depend on the picture's size alone. Both functions take a
table and a side; the result is kept until the table or the result changes (their version counters, which
`table.data.mul_(…)` passes by), or the table goes away.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from model.slots import relative_table, resize_grid

_kept: dict[tuple, tuple[weakref.ref, Tensor, int]] = {}  # the table's storage, the result, its version


def grid_once(table: Tensor, side: int) -> Tensor:
    """(1, s, s, d) -> (1, side, side, d): see model.slots.resize_grid."""
    return table if table.shape[1] == side else _once(resize_grid, table, side)


def relative_once(table: Tensor, side: int) -> Tensor:
    """(2s-1, k) -> (side, side, k) by [query, key]: see model.slots.relative_table."""
    return _once(relative_table, table, side)


def _once(resize: Callable[[Tensor, int], Tensor], table: Tensor, side: int) -> Tensor:
    learns = torch.is_grad_enabled() and table.requires_grad  # a gradient has to flow
    if learns or torch.is_inference(table) or isinstance(table, FakeTensor):
        return resize(table, side)  # the first do not tell when they change, the last have no numbers
    storage = table.untyped_storage()
    key = (
        resize.__name__, side, storage._cdata, table.storage_offset(), table.shape, table.stride(),
        table.dtype, table._version,
    )  # fmt: skip
    found = _kept.get(key)
    if found is not None and found[0]() is storage and found[1]._version == found[2]:
        return found[1]
    fits = resize is relative_table and len(table) == 2 * side - 1  # only indexed: it can stay where it is
    with torch.inference_mode(False), torch.no_grad():  # made once, for whoever comes: training too
        try:
            here = table.detach() if fits else table.detach().cpu()
        except NotImplementedError:  # a meta tensor, unless a dry census takes the copy for one of a device
            return resize(table, side)
        result = resize(here, side).to(table.device)
    for old in [k for k, (alive, *_) in _kept.items() if alive() is None or k[:-1] == key[:-1]]:
        del _kept[old]
    _kept[key] = (weakref.ref(storage), result, result._version)
    return result
