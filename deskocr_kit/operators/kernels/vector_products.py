"""Products of few rows with a matrix, for decoding: each weight is read once, in fp32 sums.

`normed_product` applies the RMS norm of the row first; every program computes it again, because reading 1280
numbers costs less than a launch. `added_product` adds a residual.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two
from .sizes import DEPTH, block_rows


@triton.jit
def vector_product_kernel(
    x,
    norm,
    weight,
    residual,
    out,
    rows,
    width,
    outputs,
    eps,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    row = tl.program_id(1)
    scale = 1.0
    if NORM:
        squares = tl.zeros((BD,), dtype=tl.float32)
        for start in range(0, width, BD):
            at = start + tl.arange(0, BD)
            part = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)
            squares += part * part
        scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / width + eps)
    total = tl.zeros((BN,), dtype=tl.float32)
    second = tl.zeros((BN,), dtype=tl.float32)
    for start in range(0, width, BD):
        at = start + tl.arange(0, BD)
        part = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)
        if NORM:
            part = (part * scale).to(x.dtype.element_ty).to(tl.float32)
            factor = tl.load(norm + at, mask=at < width, other=0.0).to(tl.float32)
            part = (part * factor).to(x.dtype.element_ty).to(tl.float32)
        inside = (n < outputs)[:, None] & (at < width)[None, :]
        place = n[:, None] * width + at[None, :]
        a = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(a * part[None, :], 1)
        if GATED:
            b = tl.load(weight + outputs * width + place, mask=inside, other=0.0).to(tl.float32)
            second += tl.sum(b * part[None, :], 1)
    if GATED:
        total = total / (1.0 + tl.exp(-total)) * second
    if RESIDUAL:
        total += tl.load(residual + row * outputs + n, mask=n < outputs, other=0.0).to(tl.float32)
    tl.store(out + row * outputs + n, total.to(out.dtype.element_ty), mask=n < outputs)


def normed_product(x: Tensor, norm: Tensor, eps: float, weight: Tensor, gated: bool = False) -> Tensor:
    """RMS norm of x (n, d), then the product with weight (m, d) -> (n, m).

    gated: weight is (2m, d) = [gate | up], and the result is silu(gate) * up.
    """
    return _product(x, weight, norm=norm, eps=eps, gated=gated)


def added_product(x: Tensor, weight: Tensor, residual: Tensor) -> Tensor:
    """residual (n, m) + x (n, d) @ weight.T, weight (m, d) -> (n, m)."""
    return _product(x, weight, residual=residual)


def _product(x: Tensor, weight: Tensor, norm=None, eps=0.0, residual=None, gated=False) -> Tensor:
    rows, width = x.shape
    outputs = len(weight) // (2 if gated else 1)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    launch(
        vector_product_kernel,
        (blocks(outputs, block_rows()), rows),
        x.contiguous(),
        x if norm is None else norm,
        weight,
        x if residual is None else residual,
        out,
        rows,
        width,
        outputs,
        float(eps),
        NORM=norm is not None,
        RESIDUAL=residual is not None,
        GATED=gated,
        BN=block_rows(),
        BD=min(DEPTH, power_of_two(width)),
    )
    return out
