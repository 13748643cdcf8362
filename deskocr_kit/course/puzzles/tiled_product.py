"""Puzzle: a matrix product in blocks."""

from __future__ import annotations

import torch

from ...operators.kernels.language import tl
from .judge import small
from .kernels import JIT, start
from .puzzle import Case, Puzzle

SIDES = {"BM": 16, "BN": 16, "BK": 16}  # the smallest blocks of tl.dot on most devices


def tiled_product(a, b, out, m, n, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """out = a @ b. Program (i, j) computes BM rows and BN columns, in steps of BK.

    a (m, k), b (k, n), out (m, n), fp32, one row behind the other. The sides need not be
    multiples of the blocks.
    """
    row, column = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None], tl.arange(0, BN)[None, :]
    column += tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, k, BK):
        across, down = first + tl.arange(0, BK)[None, :], first + tl.arange(0, BK)[:, None]
        left = tl.load(a + row * k + across, mask=(row < m) & (across < k), other=0.0)
        right = tl.load(b + down * n + column, mask=(down < k) & (column < n), other=0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
    tl.store(out + row * n + column, total, mask=(row < m) & (column < n))


def cases():
    for label, m, n, k in (
        ("one block", 16, 16, 16),
        ("two steps of the sum", 16, 16, 32),
        ("two programs down, three across", 32, 48, 16),
        ("sides that are no multiples", 18, 21, 19),
        ("one row", 1, 17, 40),
    ):
        a, b = small(m, k), small(k, n, seed=1)
        grid = (-(-m // SIDES["BM"]), -(-n // SIDES["BN"]))
        args = (grid, (a, b), torch.empty(m, n), (m, n, k), SIDES)
        yield Case(label, args, (a.double() @ b.double()).float(), look=start)


PUZZLE = Puzzle(
    title="A tiled product",
    chinese="分块矩阵乘法：每个 program 算一块结果，沿 k 方向分步累加。",
    difficulty=4,
    importance=5,
    minutes=25,
    hint="row[:, None] is a column of addresses, at[None, :] a row of them; their sum is a whole block. "
    'total = tl.dot(left, right, total, input_precision="ieee") multiplies two blocks and adds. '
    "Mask both factors with 0, then what lies outside adds nothing.",
    solution=tiled_product,
    cases=cases,
    decorator=JIT,
)
