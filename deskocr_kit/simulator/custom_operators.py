"""Operators of other libraries on the simulated NPU: one launch each, computed on the same memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import alias, counters


def launched(name: str, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Count one launch of `name`; return CPU tensors with the memory of `tensors`, for reading and writing.

    Raises:
        RuntimeError: a tensor is on the host. A kernel of the device cannot read it.
    """
    if host := [t for t in tensors if t.device.type == "cpu"]:
        raise RuntimeError(
            f"{name}: Expected all tensors to be on the same device, but found at least two devices, "
            f"npu:0 and cpu (a tensor of shape {tuple(host[0].shape)})"
        )
    if counters.active:
        counters.note("launch", name)
    return [alias.to_cpu(t) for t in tensors]
