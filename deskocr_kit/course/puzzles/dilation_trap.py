"""Puzzle: what F.unfold does with its third positional argument."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .puzzle import Case, Puzzle


def dilation_trap(side, kernel, stride, padding):
    """Count the windows per side of a square image. Return (meant, got), two ints.

    meant: by F.unfold(x, kernel, padding=padding, stride=stride)
    got:   by F.unfold(x, kernel, padding, stride), or None where that raises
    """
    meant = (side + 2 * padding - kernel) // stride + 1
    if padding == 0:  # it becomes the dilation, which may not be 0
        return meant, None
    got = side + 2 * stride - padding * (kernel - 1)  # the stride becomes the padding
    return meant, got if got > 0 else None


def _windows(side: int, *args, **kwargs) -> int | None:
    try:
        columns = F.unfold(torch.zeros(1, 1, side, side), *args, **kwargs)
    except RuntimeError:
        return None
    return round(columns.shape[-1] ** 0.5)


def cases():
    for label, side, kernel, stride, padding in (
        ("3x3, padding 1, stride 1: right by luck", 8, 3, 1, 1),
        ("3x3, padding 1, stride 2", 8, 3, 2, 1),
        ("a patch embedding", 16, 4, 4, 0),
        ("5x5, padding 2", 9, 5, 1, 2),
        ("7x7, padding 3, stride 2", 20, 7, 2, 3),
        ("nothing fits", 3, 3, 1, 3),
        ("1x1 with padding", 5, 1, 1, 1),
    ):
        meant = _windows(side, kernel, padding=padding, stride=stride)
        got = _windows(side, kernel, padding, stride)
        yield Case(label, (side, kernel, stride, padding), (meant, got))


PUZZLE = Puzzle(
    title="The dilation trap",
    chinese="F.unfold 的第三个位置参数是 dilation 而不是 padding：有时报错，有时出错，有时碰巧正确。",
    difficulty=2,
    importance=4,
    minutes=10,
    hint="The signature is F.unfold(input, kernel_size, dilation=1, padding=0, stride=1). A kernel with "
    "dilation d covers d * (kernel - 1) + 1 pixels.",
    solution=dilation_trap,
    cases=cases,
)
