"""Puzzle: the first kernel. One program copies one row, or writes zeros."""

from __future__ import annotations

import torch

from ...operators.kernels.language import tl
from .judge import small
from .kernels import JIT, start
from .puzzle import Case, Puzzle


def masked_row_copy(x, keep, out, width, BLOCK: tl.constexpr):
    """Program i copies row i of x to out if keep[i] is not 0; otherwise it writes zeros.

    x, out (rows, width), one row behind the other; keep (rows) int32. BLOCK is a power of
    two, at least width. A row that is not kept may contain NaN.
    """
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    place = row * width + at
    readable = tl.where(tl.load(keep + row) != 0, width, 0)
    tl.store(out + place, tl.load(x + place, mask=at < readable, other=0.0), mask=at < width)


def cases():
    for label, rows, width, marks in (
        ("a row that fills its block", 1, 8, "1"),
        ("a row that is shorter than its block", 1, 5, "1"),
        ("two rows: where does the second begin?", 2, 5, "11"),
        ("a row that is not kept", 3, 5, "101"),
        ("no row is kept", 2, 3, "00"),
    ):
        keep = torch.tensor([int(each) for each in marks], dtype=torch.int32)
        x = small(rows, width)
        x[keep == 0] = float("nan")
        expected = torch.where(keep[:, None] != 0, x, torch.zeros_like(x))
        args = ((rows,), (x, keep), torch.empty_like(x), (width,), {"BLOCK": 8})
        yield Case(label, args, expected, look=start, budget=0.0)


PUZZLE = Puzzle(
    title="A masked row copy",
    chinese="第一个核函数：每个 program 负责一行，掩码决定读写哪些地址。",
    difficulty=1,
    importance=5,
    minutes=10,
    hint="tl.program_id(0) is the row. tl.arange(0, BLOCK) gives the numbers 0 to BLOCK - 1 at once; add "
    "them to the address where the row begins. The load and the store need a mask each. Where its mask is "
    "False, a load gives `other`.",
    solution=masked_row_copy,
    cases=cases,
    decorator=JIT,
)
