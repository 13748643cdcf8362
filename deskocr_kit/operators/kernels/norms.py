"""RMS norm and layer norm of rows, each also with the sum that precedes it in a residual network.

One program takes whole rows: a row of 1280 numbers in fp32 is 5 KiB of an NPU's 192 KiB buffer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two
from .sizes import ROWS


@triton.jit
def load_row(x, other, total, place, here, SUM: tl.constexpr):
    """One row in fp32. With SUM: x + other, rounded to their dtype and stored in `total`."""
    numbers = tl.load(x + place, mask=here, other=0.0)
    if SUM:
        second = tl.load(other + place, mask=here, other=0.0)
        numbers = (numbers.to(tl.float32) + second.to(tl.float32)).to(numbers.dtype)
        tl.store(total + place, numbers, mask=here)
    return numbers.to(tl.float32)


@triton.jit
def rms_norm_kernel(
    x, other, weight, total, out, rows, width, eps, SUM: tl.constexpr, EACH: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.arange(0, BLOCK)
    scale = tl.load(weight + at, mask=at < width, other=0.0).to(tl.float32)
    for i in range(EACH):
        row = tl.program_id(0) * EACH + i
        here = at < tl.where(row < rows, width, 0)
        place = row * width + at
        wide = load_row(x, other, total, place, here, SUM)
        mean = tl.sum(wide * wide, 0) / width
        normed = (wide * (1.0 / tl.sqrt(mean + eps))).to(out.dtype.element_ty).to(tl.float32)
        tl.store(out + place, (normed * scale).to(out.dtype.element_ty), mask=here)


@triton.jit
def layer_norm_kernel(
    x,
    other,
    weight,
    bias,
    total,
    out,
    rows,
    width,
    eps,
    SUM: tl.constexpr,
    EACH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.arange(0, BLOCK)
    inside = at < width
    scale = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    for i in range(EACH):
        row = tl.program_id(0) * EACH + i
        here = at < tl.where(row < rows, width, 0)
        place = row * width + at
        wide = load_row(x, other, total, place, here, SUM)
        centred = tl.where(inside, wide - tl.sum(wide, 0) / width, 0.0)
        spread = tl.sum(centred * centred, 0) / width
        normed = centred * (1.0 / tl.sqrt(spread + eps)) * scale + shift
        tl.store(out + place, normed.to(out.dtype.element_ty), mask=here)


def rms_norm(x: Tensor, weight: Tensor, eps: float, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(x + other, its RMS norm). x, other (..., d); without `other` the first result is x."""
    return _norm(rms_norm_kernel, (weight,), x, eps, other)


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, other: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(x + other, its layer norm). x, other (..., d); without `other` the first result is x."""
    return _norm(layer_norm_kernel, (weight, bias), x, eps, other)


def _norm(kernel, tables: tuple[Tensor, ...], x: Tensor, eps: float, other: Tensor | None):
    flat = x.contiguous()
    width = flat.shape[-1]
    rows = flat.numel() // width if width else 0
    each = power_of_two(blocks(rows, ROWS))
    out = torch.empty_like(flat)
    second = flat if other is None else other.expand(x.shape).contiguous()
    total = flat if other is None else torch.empty_like(flat)
    launch(
        kernel,
        (blocks(rows, each),),
        flat,
        second,
        *(table.contiguous() for table in tables),
        total,
        out,
        rows,
        width,
        float(eps),
        SUM=other is not None,
        EACH=each,
        BLOCK=power_of_two(width),
    )
    return total, out
