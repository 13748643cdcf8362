"""How close two tensors are, in the numbers that people use, and what may be expected of a dtype."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Relative error (norms) of one block on given inputs, when it does the same arithmetic in another order.
# fp32: sums of a few thousand products differ by 1e-6; a wrong formula (tanh for erf) by 1e-4 and more.
# fp16 and bf16: a few roundings of 2**-11 and 2**-8; where the same dtype on the CPU is at hand, twice its
# error counts instead.
BUDGET = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
# The same for a whole network, where errors add up and near ties of the router flip.
CUMULATIVE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class Closeness:
    """Of a tensor to its reference.

    pcc: Pearson correlation. relative: |a - b| / |b|, norms in fp64. largest: max |a - b|. largest_relative:
    that over max |b|. within: share of values within rtol of the largest |b| of their row. finite: no NaN or
    Inf. first: index of the first value outside, else of the largest difference, None if all are equal.
    problem: why nothing could be compared.
    """

    pcc: float = float("nan")
    relative: float = float("inf")
    largest: float = float("inf")
    largest_relative: float = float("inf")
    within: float = 0.0
    finite: bool = True
    first: tuple[int, ...] | None = None
    problem: str = ""

    def ok(self, budget: float) -> bool:
        return not self.problem and self.finite and self.relative <= budget

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        return ("" if self.finite else "NaN or Inf, ") + f"pcc {self.pcc:.6f}, relative {self.relative:.1e}"


def closeness(ours: Tensor, reference: Tensor, rtol: float = 1e-3) -> Closeness:
    """Compare two tensors of the same shape, of any dtype and on any device."""
    if tuple(ours.shape) != tuple(reference.shape):
        return Closeness(problem=f"shape {tuple(ours.shape)}, expected {tuple(reference.shape)}")
    a, b = ours.detach().cpu().double(), reference.detach().cpu().double()
    if a.numel() == 0:
        return Closeness(1.0, 0.0, 0.0, 0.0, 1.0)
    away = (a - b).abs()
    same = (a == b) | (a.isnan() & b.isnan())  # equal infinities too
    away = torch.where(same, torch.zeros_like(away), away.nan_to_num(torch.inf, torch.inf, torch.inf))
    scale = b.abs().nan_to_num(0, 0, 0)
    row = scale.amax(-1, keepdim=True).clamp_min(1e-30) if b.dim() else scale.clamp_min(1e-30)
    inside = away <= rtol * row
    outside = (~inside).nonzero()
    largest = away.max().item()
    return Closeness(
        pcc=_pcc(a.flatten(), b.flatten()),
        relative=(away.norm() / scale.norm().clamp_min(1e-30)).item(),
        largest=largest,
        largest_relative=largest / max(scale.max().item(), 1e-30),
        within=inside.double().mean().item(),
        finite=bool(torch.isfinite(a).all()) or not bool(torch.isfinite(b).all()),
        first=_first(away, outside) if largest > 0 else None,
    )


def _first(away: Tensor, outside: Tensor) -> tuple[int, ...]:
    if len(outside):
        return tuple(outside[0].tolist())
    return tuple((away == away.max()).nonzero()[0].tolist())


def _pcc(a: Tensor, b: Tensor) -> float:
    """Correlation; 1 for equal tensors, also for constants, where it is undefined."""
    if torch.equal(a, b):
        return 1.0
    a, b = a - a.mean(), b - b.mean()
    return (a @ b / (a.norm() * b.norm()).clamp_min(1e-300)).item()


def worst(ours, reference, rtol: float = 1e-3) -> Closeness:
    """The least close pair of tensors in two outputs (tensors, or tuples, lists, dicts of them)."""
    mine, theirs = list(tensors(ours)), list(tensors(reference))
    if len(mine) != len(theirs):
        return Closeness(problem=f"{len(mine)} tensors, expected {len(theirs)}")
    found = [closeness(a, b, rtol) for a, b in zip(mine, theirs, strict=True)]
    return max(
        found, key=lambda c: (bool(c.problem), not c.finite, c.relative), default=Closeness(1, 0, 0, 0, 1)
    )


def tensors(value):
    """Every tensor in nested tuples, lists, dicts and dataclass-like outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors([getattr(value, name) for name in value.__dataclass_fields__])


def place(index: tuple[int, ...] | None, shape: tuple[int, ...]) -> str:
    """An index as text: sample and token for (b, n, …), else the plain index."""
    if index is None:
        return ""
    if len(shape) == 3:
        return f"sample {index[0]}, token {index[1]}"
    if len(shape) == 2:
        return f"token {index[0]}"
    return f"at {list(index)}"
