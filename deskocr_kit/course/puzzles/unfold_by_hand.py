"""Puzzle: F.unfold without F.unfold."""

from __future__ import annotations

import torch.nn.functional as F

from .judge import small
from .puzzle import Case, Puzzle


def unfold_by_hand(x, kernel, stride=1, padding=0):
    """Every window of x (b, c, H, W) as one column: (b, c * kernel * kernel, windows).

    Without F.unfold, which is this function.
    """
    x = F.pad(x, (padding, padding, padding, padding))
    windows = x.unfold(2, kernel, stride).unfold(3, kernel, stride)  # b c H' W' kh kw
    b, c, high, wide = windows.shape[:4]
    columns = windows.permute(0, 1, 4, 5, 2, 3)
    return columns.reshape(b, c * kernel * kernel, high * wide)


def cases():
    for label, shape, kernel, stride, padding in (
        ("one channel", (1, 1, 4, 4), 2, 1, 0),
        ("two channels", (1, 2, 4, 4), 2, 2, 0),
        ("a batch", (2, 3, 5, 5), 3, 1, 0),
        ("stride 2: the last row fills no window", (1, 2, 6, 7), 3, 2, 0),
        ("padding", (1, 2, 5, 5), 3, 2, 1),
        ("a wide image", (1, 1, 3, 8), 3, 1, 1),
    ):
        x = small(*shape)
        expected = F.unfold(x, kernel_size=kernel, padding=padding, stride=stride)
        yield Case(label, (x, kernel, stride, padding), expected)
    x = small(1, 5, 5, 2).permute(0, 3, 1, 2)
    yield Case("channels innermost in memory", (x, 2, 2, 0), F.unfold(x, 2, stride=2))


PUZZLE = Puzzle(
    title="Unfold by hand",
    chinese="把每个窗口摊成一列：卷积从此变成一次矩阵乘法。",
    difficulty=3,
    importance=4,
    minutes=15,
    hint="Tensor.unfold(dimension, size, step) cuts one dimension into windows. After two such calls, only "
    "the order of the dimensions is wrong. Or collect kernel * kernel shifted images.",
    solution=unfold_by_hand,
    cases=cases,
    forbidden={"im2col": "that is F.unfold itself; write it by hand"},
)
