"""SAM's attention inside windows, in one launch: the slot `sam_attention`.

The windows are read from the map by index, and so are the tables of relative positions: no window, no padding
and no bias is written to memory. The result lies as the map, so that the output product reads it as it is.

A program takes queries of one row of a window and goes through the rows of keys. Then the bias of a key's row
is one product per query and row, and the bias of a key's column is the same for every row of keys, so that it
is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import GRID_LIMIT, blocks, launch, power_of_two, widens
from .running_softmax import add_keys
from .sizes import attention_block


@triton.jit
def window_attention_kernel(
    qkv,
    bias,
    rel_h,
    rel_w,
    out,
    side,
    window,
    across,
    parts,
    heads,
    width,
    first,
    step_q,
    step_k,
    scale,
    EACH: tl.constexpr,
    PADDED: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    SIDE: tl.constexpr,
    BM: tl.constexpr,
):
    i = tl.program_id(0) // parts  # the queries' row and columns in their window
    j = tl.program_id(0) % parts * BM + tl.arange(0, BM)
    b = tl.program_id(1) // (across * across)
    top = tl.program_id(1) // across % across * window
    left = tl.program_id(1) % across * window
    at = tl.arange(0, BLOCK)
    column = tl.arange(0, SIDE)
    columns = tl.minimum(window, side - left)  # the others lie beyond the map
    line = 3 * heads * width
    corner = (b * side + top) * side + left
    for n in range(EACH):
        head = tl.program_id(2) * EACH + n
        wanted = (j < tl.where(top + i < side, columns, 0))[:, None] & (at < width)[None, :]
        place = corner + i * side + j
        a = tl.load(qkv + place[:, None] * line + head * width + at[None, :], mask=wanted, other=0.0)
        query = a.to(tl.float32)
        of_column = tl.zeros((BM, SIDE), dtype=tl.float32)
        for y in range(0, window):
            known = (j < window)[:, None] & (at < width)[None, :]
            entry = first + j[:, None] * step_q + y * step_k + at[None, :]
            table = tl.load(rel_w + entry, mask=known, other=0.0).to(tl.float32)
            here = tl.sum(query * table, 1)
            of_column = tl.where((column == y)[None, :], here[:, None], of_column)
        if WIDE:
            a = query
        of_key, of_value = (heads + head) * width, (2 * heads + head) * width
        pad_k = tl.load(bias + of_key + at, mask=at < width, other=0.0)
        pad_v = tl.load(bias + of_value + at, mask=at < width, other=0.0)
        largest = tl.full((BM,), -float("inf"), dtype=tl.float32)
        total = tl.zeros((BM,), dtype=tl.float32)
        result = tl.zeros((BM, BLOCK), dtype=tl.float32)
        for x in range(0, window):
            on_map = column < tl.where(top + x < side, columns, 0)
            key = corner + x * side + column
            there = on_map[None, :] & (at < width)[:, None]
            kk = tl.load(qkv + of_key + key[None, :] * line + at[:, None], mask=there, other=0.0)
            inside = on_map[:, None] & (at < width)[None, :]
            vv = tl.load(qkv + of_value + key[:, None] * line + at[None, :], mask=inside, other=0.0)
            if PADDED:
                kk = tl.where(on_map[None, :], kk, pad_k[:, None])
                vv = tl.where(on_map[:, None], vv, pad_v[None, :])
            if WIDE:
                kk, vv = kk.to(tl.float32), vv.to(tl.float32)
            entry = first + i * step_q + x * step_k + at
            table = tl.load(rel_h + entry, mask=at < width, other=0.0).to(tl.float32)
            of_row = tl.sum(query * table[None, :], 1)
            scores = tl.dot(a, kk, input_precision="ieee") * scale + of_row[:, None] + of_column
            scores = tl.where((column < window)[None, :], scores, -float("inf"))
            largest, total, result = add_keys(scores, vv, largest, total, result)
        result = result / total[:, None]
        to = out + (place[:, None] * heads + head) * width + at[None, :]
        tl.store(to, result.to(out.dtype.element_ty), mask=wanted)


def window_attention(
    qkv: Tensor, bias: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int, window: int
) -> Tensor:
    """See slots.sam_attention for the arguments -> (b, s, s, d).

    rel_h and rel_w: (2l-1, k) as stored, with l the side of a window; or (l, l, k) by [query, key].
    """
    b, side, _, line = qkv.shape
    window = window or side
    across, width = blocks(side, window), line // (3 * heads)
    out = torch.empty(b, side, side, line // 3, dtype=qkv.dtype, device=qkv.device)
    if rel_h.dim() == 2:  # [query - key + window - 1]
        first, step_q, step_k = (window - 1) * width, width, -width
    else:
        first, step_q, step_k = 0, window * width, width
    block = min(attention_block(qkv.dtype)[0], max(16, power_of_two(window)))
    parts = blocks(window, block)
    grid = (window * parts, b * across**2)
    each = 1 if grid[0] * grid[1] * heads <= GRID_LIMIT else heads
    launch(
        window_attention_kernel,
        (*grid, heads // each),
        qkv.contiguous(),
        bias,
        rel_h.contiguous(),
        rel_w.contiguous(),
        out,
        side,
        window,
        across,
        parts,
        heads,
        width,
        first,
        step_q,
        step_k,
        float(width**-0.5),
        EACH=each,
        PADDED=across * window > side,
        WIDE=widens(qkv),
        BLOCK=max(16, power_of_two(width)),
        SIDE=max(16, power_of_two(window)),
        BM=block,
    )
    return out
