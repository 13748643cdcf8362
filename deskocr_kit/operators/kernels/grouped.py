"""A mixture of experts for many tokens: one product for all experts, whose rows are gathered on reading.

    sort     the (token, expert) pairs by expert, each expert's part padded to whole blocks
    gate_up  per block of pairs: gate, up and SwiGLU of the block's expert
    down     per block of pairs: the weighted result of each pair
    combine  per token: the sum over its pairs, and over what else is added

The host waits for nothing: the number of blocks is that of the worst case, and blocks without pairs end at
once. A place that is nobody's is computed for token 0 and not used: an NPU would apply a mask for it after
the load, and would write back what a store leaves out (kernel_evidence/before_mask.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two, widens
from .sizes import PRODUCT

PAIRS = 1024  # ids per step of sorting
COUNTED = 8192  # comparisons of an id with an expert per step of counting: 32 KiB


@triton.jit
def sort_kernel(
    ids,
    order,
    owner,
    pairs,
    experts,
    most,
    BM: tl.constexpr,
    BE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """One program per expert. Each counts the pairs of all experts: less work than a launch of its own."""
    expert = tl.program_id(0)
    every = tl.arange(0, BE)
    sizes = tl.zeros((BE,), dtype=tl.int32)
    for start in range(0, pairs, STEP):
        at = start + tl.arange(0, STEP)
        found = tl.load(ids + at, mask=at < pairs, other=-1).to(tl.int32)
        sizes += tl.sum((every[:, None] == found[None, :]).to(tl.int32), 1)
    padded = (sizes + BM - 1) // BM
    first = tl.sum(tl.where(every < expert, padded, 0), 0)
    mine = tl.sum(tl.where(every == expert, padded, 0), 0)
    filled = tl.sum(tl.where(every == expert, sizes, 0), 0)
    for block in range(0, mine):
        tl.store(owner + first + block, expert)
    # Nobody's: the places behind the last pair of each expert, and the blocks behind those of the last one.
    behind = (mine - 1) * BM + tl.arange(0, BM)
    tl.store(order + first * BM + behind, tl.full((BM,), -1, dtype=tl.int32), mask=behind >= filled)
    for block in range(first + mine, tl.where(expert == experts - 1, most, 0)):
        tl.store(owner + block, -1)
    done = 0
    for start in range(0, pairs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        hit = (tl.load(ids + at, mask=at < pairs, other=-1) == expert).to(tl.int32)
        rank = done + tl.cumsum(hit, 0) - hit
        tl.store(order + first * BM + rank, at, mask=hit != 0)
        done += tl.sum(hit, 0)


@triton.jit
def grouped_gate_up_kernel(
    x,
    weight,
    order,
    owner,
    hidden,
    width,
    inner,
    top,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    expert = tl.load(owner + tl.program_id(0)).to(tl.int64)
    if expert >= 0:
        row = tl.program_id(0) * BM + tl.arange(0, BM)
        pair = tl.load(order + row)
        token = tl.maximum(pair, 0) // top
        n = tl.program_id(1) * BN + tl.arange(0, BN)
        gate = tl.zeros((BM, BN), dtype=tl.float32)
        up = tl.zeros((BM, BN), dtype=tl.float32)
        matrix = weight + expert * 2 * inner * width
        for start in range(0, width, BK):
            k = start + tl.arange(0, BK)
            place = token[:, None] * width + k[None, :]
            if EVEN:  # whole rows at a time
                a = tl.load(x + place)
            else:
                inside = k[None, :] + token[:, None] * 0 < width
                a = tl.load(x + tl.where(inside, place, 0), mask=inside, other=0.0)
            known = (k < width)[:, None] & (n < inner)[None, :]
            place = n[None, :] * width + k[:, None]
            b = tl.load(matrix + place, mask=known, other=0.0)
            c = tl.load(matrix + inner * width + place, mask=known, other=0.0)
            if WIDE:
                a, b, c = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32)
            gate = tl.dot(a, b, gate, input_precision="ieee")
            up = tl.dot(a, c, up, input_precision="ieee")
        result = gate / (1.0 + tl.exp(-gate)) * up
        to = hidden + row[:, None] * inner + n[None, :]
        tl.store(to, result.to(hidden.dtype.element_ty), mask=(n < inner)[None, :])


@triton.jit
def grouped_down_kernel(
    hidden,
    weight,
    order,
    owner,
    shares,
    out,
    width,
    inner,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    expert = tl.load(owner + tl.program_id(0)).to(tl.int64)
    if expert >= 0:
        row = tl.program_id(0) * BM + tl.arange(0, BM)
        pair = tl.load(order + row)
        share = tl.load(shares + tl.maximum(pair, 0)).to(tl.float32)
        n = tl.program_id(1) * BN + tl.arange(0, BN)
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for start in range(0, inner, BK):
            k = start + tl.arange(0, BK)
            a = tl.load(hidden + row[:, None] * inner + k[None, :], mask=(k < inner)[None, :], other=0.0)
            known = (k < inner)[:, None] & (n < width)[None, :]
            place = expert * width * inner + n[None, :] * inner + k[:, None]
            b = tl.load(weight + place, mask=known, other=0.0)
            if WIDE:
                a, b = a.to(tl.float32), b.to(tl.float32)
            total = tl.dot(a, b, total, input_precision="ieee")
        there = (pair >= 0)[:, None] & (n < width)[None, :]
        tl.store(out + pair[:, None] * width + n[None, :], total * share[:, None], mask=there)


@triton.jit
def combine_kernel(parts, added, out, width, ADDED: tl.constexpr, TOP: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for slot in range(TOP):
        total += tl.load(parts + (token * TOP + slot) * width + at, mask=at < width, other=0.0)
    if ADDED:
        total += tl.load(added + token * width + at, mask=at < width, other=0.0).to(tl.float32)
    tl.store(out + token * width + at, total.to(out.dtype.element_ty), mask=at < width)


def many_tokens(
    x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor, added: Tensor | None = None
) -> Tensor:
    """The weighted sum over the chosen experts, plus `added` (n, d) -> (n, d).

    The other shapes are those of `experts.few_tokens`.
    """
    n, top = ids.shape
    count, width, inner = down.shape
    pairs, (bm, bn, bk) = n * top, PRODUCT
    most = blocks(pairs, bm) + min(count, pairs)  # each expert fills at most one block in part
    order = torch.empty(most * bm, dtype=torch.int32, device=x.device)
    owner = torch.empty(most, dtype=torch.int32, device=x.device)
    ids, x = ids.contiguous(), x.contiguous()
    every, step = power_of_two(count), power_of_two(pairs)
    launch(
        sort_kernel, (count,), ids, order, owner, pairs, count, most,
        BM=bm, BE=every, BLOCK=min(PAIRS, step), STEP=max(1, min(COUNTED // every, step)),
    )  # fmt: skip
    hidden = torch.empty(most * bm, inner, dtype=x.dtype, device=x.device)
    size = {"WIDE": widens(x), "BM": bm, "BN": bn, "BK": bk}
    launch(
        grouped_gate_up_kernel,
        (most, blocks(inner, bn)),
        x,
        gate_up,
        order,
        owner,
        hidden,
        width,
        inner,
        top,
        EVEN=width % bk == 0,
        **size,
    )
    parts = torch.empty(pairs, width, dtype=torch.float32, device=x.device)
    launch(
        grouped_down_kernel, (most, blocks(width, bn)), hidden, down, order, owner,
        weights.contiguous(), parts, width, inner, **size,
    )  # fmt: skip
    out = torch.empty_like(x)
    launch(
        combine_kernel, (n,), parts, x if added is None else added.contiguous(), out, width,
        ADDED=added is not None, TOP=top, BLOCK=power_of_two(width),
    )  # fmt: skip
    return out
