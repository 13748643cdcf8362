"""Puzzle: a convolution whose windows do not overlap, as a reshape and a matrix product."""

from __future__ import annotations

import torch.nn.functional as F

from .judge import small
from .puzzle import Case, Puzzle


def patchify(x, weight, stride):
    """F.conv2d(x, weight, stride=stride) where kernel == stride, without a convolution.

    x (b, c, H, W), weight (o, c, k, k), stride k -> (b, o, H // k, W // k).
    """
    b, c, high, wide = x.shape[0], x.shape[1], x.shape[2] // stride, x.shape[3] // stride
    x = x[:, :, : high * stride, : wide * stride]  # pixels that fill no window are ignored
    patches = x.reshape(b, c, high, stride, wide, stride).permute(0, 2, 4, 1, 3, 5)
    rows = patches.reshape(b, high, wide, -1) @ weight.flatten(1).T
    return rows.permute(0, 3, 1, 2)


def cases():
    for label, shape, out, k in (
        ("one patch", (1, 1, 2, 2), 1, 2),
        ("a row of patches", (1, 1, 2, 8), 1, 2),
        ("three channels", (1, 3, 8, 8), 4, 4),
        ("a batch", (3, 2, 4, 6), 5, 2),
        ("odd sizes: some pixels fill no patch", (1, 2, 7, 9), 3, 2),
    ):
        x, weight = small(*shape), small(out, shape[1], k, k, seed=1)
        yield Case(label, (x, weight, k), F.conv2d(x, weight, stride=k))
    x, weight = small(1, 6, 6, 3).permute(0, 3, 1, 2), small(2, 3, 3, 3, seed=1)
    yield Case("channels innermost in memory", (x, weight, 3), F.conv2d(x, weight, stride=3))


PUZZLE = Puzzle(
    title="Patchify",
    chinese="卷积核等于步长时，窗口互不重叠：一次 reshape 加一次矩阵乘法即可。",
    difficulty=2,
    importance=5,
    minutes=10,
    hint="Split H into (H', k) and W into (W', k) with one reshape, move c, k, k to the end, and multiply "
    "by the flattened weight.",
    solution=patchify,
    cases=cases,
    forbidden={"convolution": "the device lacks it"},
)
