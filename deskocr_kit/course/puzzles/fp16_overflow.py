"""Puzzle: RMS norm in fp16, for numbers whose squares are inf and for numbers whose squares are 0."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle


def fp16_overflow(x, weight, eps):
    """RMS norm in fp16 without overflow or underflow: weight * x / rms(x).

    x (n, d) fp16, weight (d,) fp16 -> fp16. The maximum of fp16 is 65504: 256 squared is inf.
    """
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype)


def reference(x, weight, eps):
    wide = x.double()
    scale = (wide.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    return (weight.double() * wide * scale).half()


def _finite(function, *args):
    result = function(*args)
    if isinstance(result, torch.Tensor) and not result.isfinite().all():
        bad = result.numel() - int(result.isfinite().sum())
        raise AssertionError(f"{bad} of {result.numel()} numbers are inf or NaN")
    return result


def cases():
    weight = (1 + small(8, seed=1) / 8).half()
    for label, size, eps in (
        ("numbers near 1", 1.0, 1e-6),
        ("a few hundred: squares overflow", 400.0, 1e-6),
        ("near the fp16 maximum", 2e4, 1e-6),
        ("tiny: squares underflow", 2e-4, 1e-12),
    ):
        x = (small(3, 8) * size).half()
        yield Case(label, (x, weight, eps), reference(x, weight, eps), look=_finite, budget=2e-3)
    x = torch.full((1, 8), 300.0).half()
    yield Case("all values equal", (x, weight, 1e-6), reference(x, weight, 1e-6), look=_finite, budget=2e-3)
    zero = torch.zeros(2, 8).half()
    yield Case("all values zero", (zero, weight, 1e-6), zero.clone(), look=_finite)


PUZZLE = Puzzle(
    title="Where fp16 ends",
    chinese="fp16 最大只有 65504：先转 fp32 再求平方，最后转回 fp16。",
    difficulty=1,
    importance=5,
    minutes=5,
    hint="Square and average in fp32. Convert to fp16 only a number that is near 1.",
    solution=fp16_overflow,
    cases=cases,
)
