"""SAM's attention with decomposed relative positions, without the (n, n) bias.

The bias of query (i, j) for key (x, y) is q·Rh[i, x] + q·Rw[j, y]: 2s numbers per query, from which the
reference builds n = s*s. For the global view that is 12 x 4096 x 4096 numbers per block, and an attention
with a float mask, which has no fused kernel on an NPU.

All: q, k, v (b, h, s*s, k), rel_h and rel_w (s, s, k) by [query, key] -> (b, h, s*s, k).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..slots import rel_pos_attention as reference

WINDOW = 16  # a side up to which a map counts as a window; SAM's have 14
CHUNK = 1 << 22  # scores held at once: 16 MiB in fp32, small beside the map and large beside a launch


def bias_parts(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """(b, h, s, s, s) each: the score of query (i, j) against every key row, and every key column."""
    b, h, _, d = q.shape
    s = rel_h.shape[0]
    grid = q.reshape(b, h, s, s, d)
    rows = torch.einsum("bhijk,ixk->bhijx", grid, rel_h)
    columns = torch.einsum("bhijk,jyk->bhijy", grid, rel_w)
    return rows, columns


def by_size_of_map(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The default: `two_step` for a whole map; in a window the bias is small and torch's attention faster."""
    return (reference if rel_h.shape[0] <= WINDOW else two_step)(q, k, v, rel_h, rel_w)


def two_step(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Exact, in plain operators: some query rows at a time, the two parts of the bias added by broadcasting.

    The sum of the bias exists only as part of the scores, and of those only CHUNK at once.
    """
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    rows, columns = bias_parts(q, rel_h, rel_w)
    keys, wide = (k * d**-0.5).transpose(-1, -2), torch.promote_types(q.dtype, torch.float32)
    step = max(1, min(s, CHUNK // max(1, b * h * s * n)))  # rows of the map per chunk
    out = []
    for i in range(0, s, step):
        part = q[:, :, i * s : (i + step) * s]
        scores = torch.matmul(part, keys).view(b, h, -1, s, s, s)  # query row, column, key row, column
        scores = scores.to(wide)  # else the sums would be rounded to half precision, twice more
        scores = scores + rows[:, :, i : i + step, :, :, None]
        scores = scores + columns[:, :, i : i + step, :, None, :]
        share = scores.view(b, h, -1, n).softmax(-1).to(v.dtype)
        out.append(torch.matmul(share, v))
    return out[0] if len(out) == 1 else torch.cat(out, 2)


def fold(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Queries and keys with 2s more columns whose product is the bias, for any attention without a bias.

    The query gets its scores against every key row and column (times sqrt(k), which the attention's scale
    takes away again); the key says in one-hot which row and column it is. The width is filled with zeros to
    a multiple of `multiple`.
    """
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    rows, columns = bias_parts(q, rel_h, rel_w)
    eye = torch.eye(s, dtype=k.dtype, device=k.device)
    where = torch.cat((eye[:, None].expand(s, s, s), eye[None].expand(s, s, s)), -1).view(n, 2 * s)
    fill = -(d + 2 * s) % multiple
    wide_q = torch.cat((q, rows.reshape(b, h, n, s) * d**0.5, columns.reshape(b, h, n, s) * d**0.5), -1)
    wide_k = torch.cat((k, where.expand(b, h, n, 2 * s)), -1)
    return (F.pad(wide_q, (0, fill)), F.pad(wide_k, (0, fill))) if fill else (wide_q, wide_k)


def folded(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as more columns of queries and keys, so that fused attention takes it."""
    d = q.shape[-1]
    q, k = fold(q, k, rel_h, rel_w)
    v = F.pad(v, (0, q.shape[-1] - d))
    return F.scaled_dot_product_attention(q, k, v, scale=d**-0.5)[..., :d]
