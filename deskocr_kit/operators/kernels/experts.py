"""A mixture of experts for few tokens: the chosen experts are read where they lie, not copied together.

Two kernels: gate, up and SwiGLU of every chosen and shared expert; then down, the weighted sum over the
experts, and the residual. The numbers between them are kept in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two
from .sizes import DEPTH, block_rows


@triton.jit
def gate_up_kernel(
    x,
    experts,
    shared,
    ids,
    hidden,
    width,
    inner,
    top,
    extra,
    SHARED: tl.constexpr,
    BI: tl.constexpr,
    BD: tl.constexpr,
):
    token, slot = tl.program_id(0), tl.program_id(1)
    i = tl.program_id(2) * BI + tl.arange(0, BI)
    routed = slot < top
    pair = token * top + tl.minimum(slot, top - 1)
    expert = tl.load(ids + pair).to(tl.int64)
    # A routed expert lies as [gate | up] of `inner` rows each. The shared ones are one wide layer:
    # the gates of all, then the ups of all.
    first = tl.where(routed, 0, (slot - top) * inner)
    apart = tl.where(routed, inner, extra * inner)
    gate = tl.zeros((BI,), dtype=tl.float32)
    up = tl.zeros((BI,), dtype=tl.float32)
    for start in range(0, width, BD):
        at = start + tl.arange(0, BD)
        numbers = tl.load(x + token * width + at, mask=at < width, other=0.0).to(tl.float32)
        own_rows = (i < tl.where(routed, inner, 0))[:, None] & (at < width)[None, :]
        place = (first + i)[:, None] * width + at[None, :]
        own = expert * 2 * inner * width + place
        a = tl.load(experts + own, mask=own_rows, other=0.0)
        b = tl.load(experts + own + apart * width, mask=own_rows, other=0.0)
        if SHARED:
            wide_rows = (i < tl.where(routed, 0, inner))[:, None] & (at < width)[None, :]
            a += tl.load(shared + place, mask=wide_rows, other=0.0)
            b += tl.load(shared + place + apart * width, mask=wide_rows, other=0.0)
        gate += tl.sum(a.to(tl.float32) * numbers[None, :], 1)
        up += tl.sum(b.to(tl.float32) * numbers[None, :], 1)
    result = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(hidden + (token * (top + extra) + slot) * inner + i, result, mask=i < inner)


@triton.jit
def down_kernel(
    hidden,
    experts,
    shared,
    ids,
    weights,
    residual,
    out,
    width,
    inner,
    top,
    extra,
    RESIDUAL: tl.constexpr,
    BD: tl.constexpr,
    BI: tl.constexpr,
):
    token = tl.program_id(0)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    total = tl.zeros((BD,), dtype=tl.float32)
    for slot in range(0, top):
        expert = tl.load(ids + token * top + slot).to(tl.int64)
        part = tl.zeros((BD,), dtype=tl.float32)
        for start in range(0, inner, BI):
            i = start + tl.arange(0, BI)
            row = (token * (top + extra) + slot) * inner
            numbers = tl.load(hidden + row + i, mask=i < inner, other=0.0)
            place = expert * width * inner + d[:, None] * inner + i[None, :]
            inside = (d < width)[:, None] & (i < inner)[None, :]
            a = tl.load(experts + place, mask=inside, other=0.0).to(tl.float32)
            part += tl.sum(a * numbers[None, :], 1)
        total += part * tl.load(weights + token * top + slot).to(tl.float32)
    for start in range(0, extra * inner, BI):  # the shared experts: one wide layer
        i = start + tl.arange(0, BI)
        row = (token * (top + extra) + top) * inner
        known = i < extra * inner
        numbers = tl.load(hidden + row + i, mask=known, other=0.0)
        place = d[:, None] * (extra * inner) + i[None, :]
        a = tl.load(shared + place, mask=(d < width)[:, None] & known[None, :], other=0.0).to(tl.float32)
        total += tl.sum(a * numbers[None, :], 1)
    if RESIDUAL:
        total += tl.load(residual + token * width + d, mask=d < width, other=0.0).to(tl.float32)
    tl.store(out + token * width + d, total.to(out.dtype.element_ty), mask=d < width)


def few_tokens(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    ids: Tensor,
    weights: Tensor,
    shared: tuple[Tensor, Tensor] | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """The weighted sum over the chosen experts, plus the shared experts and the residual -> (n, d).

    x (n, d), gate_up (e, 2i, d), down (e, d, i), ids (n, top) integers, weights (n, top);
    shared: gate_up (2mi, d) and down (d, mi) of m experts as one wide layer; residual (n, d).
    """
    n, top = ids.shape
    _, width, inner = down.shape
    extra = 0 if shared is None else shared[1].shape[1] // inner
    hidden = torch.empty(n, top + extra, inner, dtype=torch.float32, device=x.device)
    wide_gate_up, wide_down = shared if shared is not None else (gate_up, down)
    depth, step = min(DEPTH, power_of_two(width)), min(DEPTH, power_of_two(inner))
    launch(
        gate_up_kernel,
        (n, top + extra, blocks(inner, block_rows())),
        x.contiguous(),
        gate_up,
        wide_gate_up,
        ids,
        hidden,
        width,
        inner,
        top,
        extra,
        SHARED=extra > 0,
        BI=block_rows(),
        BD=depth,
    )
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    launch(
        down_kernel,
        (n, blocks(width, block_rows())),
        hidden,
        down,
        wide_down,
        ids,
        weights,
        x if residual is None else residual,
        out,
        width,
        inner,
        top,
        extra,
        RESIDUAL=residual is not None,
        BD=block_rows(),
        BI=step,
    )
    return out
