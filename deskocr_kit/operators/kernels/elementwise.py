"""SwiGLU, GELU, QuickGELU and the rotation of queries and keys: one launch each."""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two
from .sizes import FLAT, ROWS


@triton.jit
def swiglu_kernel(x, out, units, parts, half, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    for step in range(STEPS):
        unit = tl.program_id(0) * STEPS + step  # a block of a row
        row = unit // parts
        at = unit % parts * BLOCK + tl.arange(0, BLOCK)
        here = at < tl.where(unit < units, half, 0)
        left = x + row * 2 * half + at
        gate = tl.load(left, mask=here, other=0.0).to(tl.float32)
        up = tl.load(left + half, mask=here, other=0.0).to(tl.float32)
        to = out + row * half + at
        tl.store(to, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=here)


@triton.jit
def gelu_kernel(x, out, numbers, QUICK: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    for step in range(STEPS):
        at = (tl.program_id(0) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        here = at < numbers
        wide = tl.load(x + at, mask=here, other=0.0).to(tl.float32)
        if QUICK:
            result = wide / (1.0 + tl.exp(-1.702 * wide))
        else:
            result = 0.5 * wide * (1.0 + tl.erf(wide * 0.7071067811865476))
        tl.store(out + at, result.to(out.dtype.element_ty), mask=here)


@triton.jit
def rotary_kernel(
    x, cos, sin, out, rows, heads, tokens, batches, half, sb, sh, sn, EACH: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.arange(0, BLOCK)
    for i in range(EACH):
        row = tl.program_id(0) * EACH + i  # (b, h, n) in row-major order
        here = at < tl.where(row < rows, half, 0)
        b, h, n = row // (heads * tokens), row // tokens % heads, row % tokens
        left = x + b * sb + h * sh + n * sn + at
        angle = ((b % batches) * tokens + n) * 2 * half + at
        a = tl.load(left, mask=here, other=0.0).to(tl.float32)
        c = tl.load(left + half, mask=here, other=0.0).to(tl.float32)
        cos_a = tl.load(cos + angle, mask=here, other=0.0).to(tl.float32)
        sin_a = tl.load(sin + angle, mask=here, other=0.0).to(tl.float32)
        cos_c = tl.load(cos + angle + half, mask=here, other=0.0).to(tl.float32)
        sin_c = tl.load(sin + angle + half, mask=here, other=0.0).to(tl.float32)
        to = out + row * 2 * half + at
        tl.store(to, (a * cos_a - c * sin_a).to(out.dtype.element_ty), mask=here)
        tl.store(to + half, (c * cos_c + a * sin_c).to(out.dtype.element_ty), mask=here)


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up for x (..., 2i) = [gate | up] -> (..., i)."""
    if x.shape[-1] % 2:
        raise ValueError(f"swiglu: the last side of {tuple(x.shape)} must be even: [gate | up]")
    flat, half = x.contiguous(), x.shape[-1] // 2
    out = flat.new_empty(*flat.shape[:-1], half)
    if not out.numel():
        return out
    block = min(FLAT, power_of_two(half))
    parts = blocks(half, block)
    units = out.numel() // half * parts
    steps = power_of_two(blocks(units, ROWS))
    launch(swiglu_kernel, (blocks(units, steps),), flat, out, units, parts, half, BLOCK=block, STEPS=steps)
    return out


def gelu(x: Tensor, quick: bool = False) -> Tensor:
    """The exact GELU (erf), or x * sigmoid(1.702 x). Any shape."""
    flat = x.contiguous()
    out, numbers = torch.empty_like(flat), x.numel()
    block = min(FLAT, power_of_two(numbers))
    steps = power_of_two(blocks(blocks(numbers, block), ROWS))
    grid = (blocks(numbers, block * steps),)
    launch(gelu_kernel, grid, flat, out, numbers, QUICK=quick, BLOCK=block, STEPS=steps)
    return out


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (b, h, n, k), cos and sin (b or 1, 1, n, k) -> x rotated by pairs (i, i + k/2), contiguous."""
    b, h, n, k = x.shape
    if k % 2 or x.stride(-1) != 1:
        x = x.contiguous()
    if k % 2:
        raise ValueError(f"rotary: the head dimension {k} must be even")
    out = x.new_empty(b, h, n, k)
    rows = b * h * n
    each = power_of_two(blocks(rows, ROWS))
    launch(
        rotary_kernel,
        (blocks(rows, each),),
        x,
        cos.contiguous(),
        sin.contiguous(),
        out,
        rows,
        h,
        n,
        len(cos),
        k // 2,
        *x.stride()[:3],
        EACH=each,
        BLOCK=power_of_two(k // 2),
    )
    return out
