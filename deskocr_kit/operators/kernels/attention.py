"""Attention of many queries with a running softmax. No (n, n) tensor exists.

The result lies in memory as (b, n, h, k), in which the output product reads it without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import GRID_LIMIT, blocks, launch, power_of_two, widens
from .running_softmax import add_keys
from .sizes import attention_block


@triton.jit
def attention_kernel(
    q,
    k,
    v,
    out,
    heads,
    queries,
    keys,
    width,
    scale,
    qb,
    qh,
    qn,
    kb,
    kh,
    kn,
    vb,
    vh,
    vn,
    CAUSAL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    b, h = tl.program_id(1) // heads, tl.program_id(1) % heads
    query = tl.program_id(0) * BM + tl.arange(0, BM)
    at = tl.arange(0, BLOCK)
    wanted = (query < queries)[:, None] & (at < width)[None, :]
    a = tl.load(q + b * qb + h * qh + query[:, None] * qn + at[None, :], mask=wanted, other=0.0)
    if WIDE:
        a = a.to(tl.float32)
    largest = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    result = tl.zeros((BM, BLOCK), dtype=tl.float32)
    end = keys
    if CAUSAL:  # no query of this block sees a later key
        end = tl.minimum(keys, (tl.program_id(0) + 1) * BM)
    for start in range(0, end, BN):
        key = start + tl.arange(0, BN)
        there = (key < keys)[None, :] & (at < width)[:, None]
        kk = tl.load(k + b * kb + h * kh + key[None, :] * kn + at[:, None], mask=there, other=0.0)
        inside = (key < keys)[:, None] & (at < width)[None, :]
        vv = tl.load(v + b * vb + h * vh + key[:, None] * vn + at[None, :], mask=inside, other=0.0)
        if WIDE:
            kk, vv = kk.to(tl.float32), vv.to(tl.float32)
        scores = tl.dot(a, kk, input_precision="ieee") * scale
        scores = tl.where((key < keys)[None, :], scores, -float("inf"))
        if CAUSAL:
            scores = tl.where(key[None, :] <= query[:, None], scores, -float("inf"))
        # Every query sees key 0, so its first block has a finite score.
        largest, total, result = add_keys(scores, vv, largest, total, result)
    result = result / total[:, None]
    to = out + ((b * queries + query[:, None]) * heads + h) * width + at[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=wanted)


def fits(q: Tensor) -> bool:
    """Whether one launch holds all queries (b, h, n, k)."""
    return blocks(q.shape[2], attention_block(q.dtype)[0]) * q.shape[0] * q.shape[1] <= GRID_LIMIT


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(width)) v -> (b, h, n, k), a view of (b, n, h, k).

    q (b, h, n, k), k and v (b, h, m, k), of any strides; causal: query i sees the keys 0 … i.
    """
    b, h, n, width = q.shape
    bm, bn = attention_block(q.dtype)
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out = torch.empty(b, n, h, width, dtype=q.dtype, device=q.device)
    launch(
        attention_kernel,
        (blocks(n, bm), b * h),
        q,
        k,
        v,
        out,
        h,
        n,
        k.shape[2],
        width,
        float(width**-0.5),
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        CAUSAL=causal,
        WIDE=widens(q),
        BLOCK=max(16, power_of_two(width)),
        BM=bm,
        BN=bn,
    )
    return out.transpose(1, 2)
