"""SAM's attention with decomposed relative positions, without the (n, n) bias.

The bias of query (i, j) for key (x, y) is q·Rh[i, x] + q·Rw[j, y]: 2s numbers per query, which the reference
expands to n = s*s. For the global view these are 12 x 4096 x 4096 numbers per block, and an attention with a
float mask, for which an NPU has no fused kernel.

Signature of all: q, k, v (b, h, s*s, k), rel_h and rel_w (s, s, k) by [query, key] -> (b, h, s*s, k).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..slots import rel_pos_attention as reference

WINDOW = 16  # largest side of a map that counts as a window; the windows of SAM have side 14
CHUNK = 1 << 22  # scores per chunk on a CPU: 8 MiB in half precision, which fits a core's share of the cache
DEVICE_FACTOR = 16  # chunks on other devices are larger by this factor, because each costs several launches


def bias_parts(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """The scores of query (i, j) against every key row and every key column, each (b, h, s, s, s)."""
    b, h, _, d = q.shape
    s = rel_h.shape[0]
    grid = q.reshape(b, h, s, s, d)
    rows = torch.einsum("bhijk,ixk->bhijx", grid, rel_h)
    columns = torch.einsum("bhijk,jyk->bhijy", grid, rel_w)
    return rows, columns


def below_zero(part: Tensor) -> Tensor:
    """Shift a part of the bias so that its maximum per query is 0. Softmax is invariant to the shift.

    The largest scores are then small, and rounding them to half precision costs little: on random heads the
    error falls to a third, below that of the reference.
    """
    return part - part.amax(-1, keepdim=True)


def by_size_of_map(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The default: `chunked` for a whole map, `folded_products` for windows.

    Windows in fp32 take the reference: there, adding a small bias costs less than the additional columns.
    """
    if rel_h.shape[0] > WINDOW:
        return chunked(q, k, v, rel_h, rel_w)
    return (reference if q.dtype.itemsize > 2 else folded_products)(q, k, v, rel_h, rel_w)


def chunked(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Exact, in plain operators: computes the bias for CHUNK scores at a time and adds the product to it.

    The scores are accumulated and rounded once, to the dtype of q.
    """
    if 0 in (q.numel(), v.numel()):
        return reference(q, k, v, rel_h, rel_w)
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    rows, columns = (below_zero(part).reshape(b * h, s, s, s) for part in bias_parts(q, rel_h, rel_w))

    def scores(heads: slice, queries: slice, q: Tensor, k: Tensor) -> Tensor:
        lines = slice(queries.start // s, queries.stop // s)
        bias = rows[heads, lines, :, :, None] + columns[heads, lines, :, None, :]
        return torch.baddbmm(bias.reshape(len(q), -1, n), q, k, alpha=d**-0.5)

    return in_pieces(scores, q, k, v, unit=s)


def folded_products(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as 2s more columns of queries and keys (see `fold`): only products and a softmax.

    Best where 2s is small compared with the head dimension.
    """
    if 0 in (q.numel(), v.numel()):
        return reference(q, k, v, rel_h, rel_w)
    d = q.shape[-1]
    q, k = fold(q, k, rel_h, rel_w)
    return in_pieces(lambda heads, queries, q, k: torch.bmm(q * d**-0.5, k), q, k, v)


def in_pieces(scores: Callable, q: Tensor, k: Tensor, v: Tensor, unit: int = 1) -> Tensor:
    """softmax(scores) v, computed for as many heads and query rows at a time as give CHUNK scores.

    scores(heads, rows, q, k): q of these heads and rows, k (.., k, n) of these heads -> (heads, rows, n).
    The number of rows is a multiple of `unit`.
    """
    b, h, n, _ = q.shape
    q, k, v = (t.reshape(b * h, n, -1) for t in (q, k, v))
    k = k.transpose(1, 2)
    limit = CHUNK if q.device.type == "cpu" else CHUNK * DEVICE_FACTOR
    queries = max(1, min(n // unit, limit // (unit * n))) * unit
    heads = max(1, min(b * h, limit // (queries * n)))
    out = torch.empty_like(v)
    for first in range(0, b * h, heads):
        here = slice(first, first + heads)
        for row in range(0, n, queries):
            rows = slice(row, min(row + queries, n))
            weights = scores(here, rows, q[here, rows], k[here]).softmax(-1)
            out[here, rows] = torch.bmm(weights, v[here])
    return out.view(b, h, n, -1)


def fold(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Queries and keys with 2s more columns whose product is the bias, for any attention without a bias.

    The new columns of a query are its scores against every key row and column. Those of a key mark its row
    and its column: sqrt(k) there and 0 elsewhere; the scale of the attention cancels the factor. (If the
    query carried the factor, its scores would overflow fp16 earlier.) The width is padded with zeros to a
    multiple of `multiple`.
    """
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    rows, columns = map(below_zero, bias_parts(q, rel_h, rel_w))
    eye = torch.eye(s, dtype=k.dtype, device=k.device) * d**0.5
    place = torch.cat((eye[:, None].expand(s, s, s), eye[None].expand(s, s, s)), -1).view(n, 2 * s)
    fill = -(d + 2 * s) % multiple
    wide_q = torch.cat((q, rows.reshape(b, h, n, s), columns.reshape(b, h, n, s)), -1)
    wide_k = torch.cat((k, place.expand(b, h, n, 2 * s)), -1)
    return (F.pad(wide_q, (0, fill)), F.pad(wide_k, (0, fill))) if fill else (wide_q, wide_k)


def folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as more columns of queries and keys, so that a fused attention kernel can be used."""
    if 0 in (q.numel(), v.numel()):
        return reference(q, k, v, rel_h, rel_w)
    d, width = q.shape[-1], v.shape[-1]
    q, k = fold(q, k, rel_h, rel_w)
    v = F.pad(v, (0, q.shape[-1] - width))
    return F.scaled_dot_product_attention(q, k, v, scale=d**-0.5)[..., :width]
