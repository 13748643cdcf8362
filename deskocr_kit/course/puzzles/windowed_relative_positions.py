"""Puzzle: the relative position bias of SAM's windows."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle


def windowed_relative_positions(q, table_h, table_w):
    """The position bias of attention inside a window of s x s, as in SAM's encoder.

    q (b, h, s*s, k); table_h, table_w (2s - 1, k): one vector per distance, -(s-1) first.
    -> (b, h, s*s, s*s): q @ table_h[row of q - row of key] + q @ table_w[same for columns].
    """
    side = (len(table_h) + 1) // 2
    at = torch.arange(side, device=q.device)
    away = at[:, None] - at[None, :] + side - 1  # query, key
    grid = q.unflatten(2, (side, side))
    rows = torch.einsum("bhijk,ixk->bhijx", grid, table_h[away])
    columns = torch.einsum("bhijk,jyk->bhijy", grid, table_w[away])
    bias = rows[..., :, None] + columns[..., None, :]
    return bias.flatten(4).flatten(2, 3)


def reference(q, table_h, table_w):
    """The definition, one pair of pixels after the other."""
    side = (len(table_h) + 1) // 2
    bias = q.new_zeros(*q.shape[:3], side * side)
    for one in range(side * side):
        for other in range(side * side):
            down = one // side - other // side + side - 1
            right = one % side - other % side + side - 1
            bias[:, :, one, other] = q[:, :, one] @ (table_h[down] + table_w[right])
    return bias


def cases():
    for label, b, h, side, k in (
        ("a window of one pixel", 1, 1, 1, 2),
        ("a window of 2 x 2", 1, 1, 2, 1),
        ("a window of 3 x 3", 1, 1, 3, 4),
        ("heads and windows", 3, 2, 3, 4),
    ):
        args = (
            small(b, h, side * side, k),
            small(2 * side - 1, k, seed=1),
            small(2 * side - 1, k, seed=2),
        )
        yield Case(label, args, reference(*args))
    args = (small(1, 1, 9, 4), small(5, 4, seed=1), torch.zeros(5, 4))
    yield Case("rows only", args, reference(*args))


PUZZLE = Puzzle(
    title="Windowed relative positions",
    chinese="窗口注意力的相对位置偏置：分成行与列两部分，再相加。",
    difficulty=4,
    importance=3,
    minutes=20,
    hint="One table of distances, at[:, None] - at[None, :] + side - 1, serves rows and columns. Multiply q "
    "by the row vectors and by the column vectors separately, then add the two by broadcasting.",
    solution=windowed_relative_positions,
    cases=cases,
)
