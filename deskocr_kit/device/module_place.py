"""The device and the dtype of any module, also of one without parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import torch
import torch.nn as nn


def place_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """(device, dtype) of a module.

    The device is that of its first parameter, else of its first buffer, else the CPU. The dtype is the
    floating one that most of its numbers have (norms and buffers may stay in fp32), else float32.
    """
    first = next(chain(module.parameters(), module.buffers()), None)
    sizes = _sizes(module.parameters()) or _sizes(module.buffers())
    dtype = sizes.most_common(1)[0][0] if sizes else torch.float32
    return torch.device("cpu") if first is None else first.device, dtype


def _sizes(tensors: Iterable[torch.Tensor]) -> Counter[torch.dtype]:
    """{floating dtype: number of values}."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():
            sizes[tensor.dtype] += tensor.numel()
    return sizes
