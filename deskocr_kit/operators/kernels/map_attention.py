"""SAM's attention with decomposed relative positions. No (n, n) tensor exists.

One step of the inner loop takes the keys of one row of the map: they share the bias of the key's row, and the
bias of the key's column is the same for every row, so that it is read once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two, widens
from .running_softmax import add_keys
from .sizes import attention_block


@triton.jit
def map_attention_kernel(
    q,
    k,
    v,
    rows,
    columns,
    out,
    heads,
    side,
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
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    SIDE: tl.constexpr,
    BM: tl.constexpr,
):
    b, h = tl.program_id(1) // heads, tl.program_id(1) % heads
    count = side * side
    query = tl.program_id(0) * BM + tl.arange(0, BM)
    at = tl.arange(0, BLOCK)
    column = tl.arange(0, SIDE)
    wanted = (query < count)[:, None] & (at < width)[None, :]
    a = tl.load(q + b * qb + h * qh + query[:, None] * qn + at[None, :], mask=wanted, other=0.0)
    line = (tl.program_id(1) * count + query) * side
    known = (query < count)[:, None] & (column < side)[None, :]
    of_column = tl.load(columns + line[:, None] + column[None, :], mask=known, other=0.0).to(tl.float32)
    if WIDE:
        a = a.to(tl.float32)
    largest = tl.full((BM,), -float("inf"), dtype=tl.float32)
    total = tl.zeros((BM,), dtype=tl.float32)
    result = tl.zeros((BM, BLOCK), dtype=tl.float32)
    for row in range(0, side):
        key = row * side + column
        there = (column < side)[None, :] & (at < width)[:, None]
        kk = tl.load(k + b * kb + h * kh + key[None, :] * kn + at[:, None], mask=there, other=0.0)
        inside = (column < side)[:, None] & (at < width)[None, :]
        vv = tl.load(v + b * vb + h * vh + key[:, None] * vn + at[None, :], mask=inside, other=0.0)
        if WIDE:
            kk, vv = kk.to(tl.float32), vv.to(tl.float32)
        of_row = tl.load(rows + line + row, mask=query < count, other=0.0).to(tl.float32)
        scores = tl.dot(a, kk, input_precision="ieee") * scale + of_row[:, None] + of_column
        scores = tl.where((column < side)[None, :], scores, -float("inf"))
        largest, total, result = add_keys(scores, vv, largest, total, result)
    result = result / total[:, None]
    to = out + (tl.program_id(1) * count + query[:, None]) * width + at[None, :]
    tl.store(to, result.to(out.dtype.element_ty), mask=wanted)


def map_attention(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Attention over a square map -> (b, h, s*s, k).

    q, k, v (b, h, s*s, k); rows and columns (b, h, s, s, s): the bias of query (i, j) for each key row and
    for each key column.
    """
    b, h, n, width = q.shape
    side = rows.shape[-1]
    bm, _ = attention_block(q.dtype)
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out = torch.empty(b, h, n, width, dtype=q.dtype, device=q.device)
    launch(
        map_attention_kernel,
        (blocks(n, bm), b * h),
        q,
        k,
        v,
        rows.contiguous(),
        columns.contiguous(),
        out,
        h,
        side,
        width,
        float(width**-0.5),
        *q.stride()[:3],
        *k.stride()[:3],
        *v.stride()[:3],
        WIDE=widens(q),
        BLOCK=power_of_two(width),
        SIDE=max(16, power_of_two(side)),
        BM=bm,
    )
    return out
