"""Run the kernel of a puzzle on memory with fences, so that a missing mask is seen and harms nothing.

The kernels of puzzles are plain functions here. `@triton.jit` is a line of the notebook's cell, so that this
package can be imported without Triton.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...device import DeviceError
from ...operators.kernels.launch import interpreted, why_not

JIT = "@triton.jit"  # the line above each kernel
FENCE = 1 << 12  # numbers before and behind each tensor; more than any block of a puzzle


def mark(dtype: torch.dtype) -> float:
    """What fences contain, and results that were never written: NaN, so that times 0 does not hide it."""
    return float("nan") if dtype.is_floating_point else 77


def fenced(values: Tensor) -> tuple[Tensor, Tensor]:
    """(the values in the middle of a larger memory, that memory)."""
    whole = values.new_full((values.numel() + 2 * FENCE,), mark(values.dtype))
    inner = whole[FENCE : FENCE + values.numel()].view(values.shape)
    return inner.copy_(values), whole


def start(kernel: Any, grid: tuple[int, ...], given: tuple, out: Tensor, sizes: tuple, blocks: dict):
    """Call kernel[grid](*given, out, *sizes, **blocks) and return `out` on the host.

    given: the tensors that are read. out: a tensor of the shape and dtype of the result.

    Raises:
        AssertionError: the decorator is missing, or the kernel writes outside of `out`.
        DeviceError: kernels cannot run here; the message has the remedy.
    """
    if not hasattr(kernel, "fn"):
        raise AssertionError(f"{kernel.__name__} is no kernel; write {JIT} above it")
    if reason := why_not():
        raise DeviceError(reason)
    where = "cpu" if interpreted() else "cuda"
    tensors, memories = zip(*(fenced(each.to(where)) for each in given), strict=True)
    result, memory = fenced(torch.full_like(out, mark(out.dtype), device=where))
    before = [each.clone() for each in (*memories, memory)]
    kernel[grid](*tensors, result, *sizes, **blocks)
    written = result.clone()
    result.fill_(mark(out.dtype))
    for now, then in zip((*memories, memory), before, strict=True):
        if not torch.equal(now.view(torch.uint8), then.view(torch.uint8)):  # bits, because NaN equals nothing
            raise AssertionError(
                "it writes outside of `out`; a store needs a mask where a block is larger than what is left"
            )
    return written.cpu()
