"""How close two tensors are, in the numbers that people use."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..device.tolerances import TINY, difference, ratio_of_norms


@dataclass(frozen=True)
class Closeness:
    """Of a tensor to its reference.

    pcc: Pearson correlation.
    relative: relative error, as device/tolerances.py defines it.
    largest: max |a - b|. largest_relative: that over max |b|.
    within: share of values within rtol of the largest |b| of their row.
    finite: no NaN or Inf.
    first: index of the first value outside, else of the largest difference, None if all are equal.
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
    away, scale = difference(ours, reference)
    row = scale.amax(-1, keepdim=True).clamp_min(TINY) if b.dim() else scale.clamp_min(TINY)
    inside = away <= rtol * row
    outside = (~inside).nonzero()
    largest = away.max().item()
    return Closeness(
        pcc=_pcc(a.flatten(), b.flatten()),
        relative=ratio_of_norms(away, scale),
        largest=largest,
        largest_relative=largest / max(scale.max().item(), TINY),
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
