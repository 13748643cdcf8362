"""Puzzle: the RMS norm of a row in one launch."""

from __future__ import annotations

import torch

from ...operators.kernels.language import tl
from .judge import small
from .kernels import JIT, start
from .puzzle import Case, Puzzle


def rms_norm_rows(x, weight, out, width, eps, BLOCK: tl.constexpr):
    """Program i normalises row i: out = x / sqrt(mean(x * x) + eps) * weight.

    x, out (rows, width) and weight (width) have one dtype; compute in fp32, round once.
    BLOCK is a power of two, at least width.
    """
    at = tl.arange(0, BLOCK)
    place = tl.program_id(0) * width + at
    numbers = tl.load(x + place, mask=at < width, other=0.0).to(tl.float32)
    factor = tl.load(weight + at, mask=at < width, other=0.0).to(tl.float32)
    scale = 1 / tl.sqrt(tl.sum(numbers * numbers, 0) / width + eps)
    tl.store(out + place, (numbers * scale * factor).to(out.dtype.element_ty), mask=at < width)


def cases():
    half = torch.float16
    for label, rows, width, eps, size, dtype in (
        ("one row", 1, 8, 1e-6, 1.0, torch.float32),
        ("three rows", 3, 8, 1e-6, 1.0, torch.float32),
        ("a row that is shorter than its block", 2, 5, 1e-6, 1.0, torch.float32),
        ("small numbers: eps counts", 2, 8, 1e-6, 1e-3, torch.float32),
        ("fp16, and the squares exceed 65504", 2, 7, 1e-6, 500.0, half),
    ):
        x, weight = (small(rows, width) * size).to(dtype), (1 + small(width, seed=1) / 4).to(dtype)
        wide = x.double()
        expected = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight.double()
        args = ((rows,), (x, weight), torch.empty_like(x), (width, eps), {"BLOCK": 8})
        yield Case(label, args, expected.to(dtype), look=start, budget=1e-3 if dtype == half else 1e-5)


PUZZLE = Puzzle(
    title="RMS norm in one launch",
    chinese="一次启动完成 RMS 归一化：整行读入，用 fp32 求和，只舍入一次。",
    difficulty=2,
    importance=5,
    minutes=15,
    hint="tl.sum(numbers, 0) adds a block up. Numbers behind the end of the row must be 0, and the mean "
    "divides by width, not by BLOCK. (…).to(tl.float32) widens; out.dtype.element_ty is the dtype of out.",
    solution=rms_norm_rows,
    cases=cases,
    decorator=JIT,
)
