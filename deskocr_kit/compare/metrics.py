"""How close two tensors are, in the numbers that people use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..device.tolerances import TINY, difference, ratio_of_norms
from .masks import hidden, hidden_in_both
from .tree import leaves, tensors

__all__ = ["Closeness", "closeness", "place", "tensors", "worst"]

ORDINARY = 1e4  # a value below this is no overflow of fp16


@dataclass(frozen=True)
class Closeness:
    """Of a tensor to its reference.

    Masked values (see masks.py) are equal to each other and count in no error. A complex tensor counts as
    pairs of real numbers. Of integers and booleans, `relative` is the share of unequal values.

    pcc: Pearson correlation.
    relative: relative error, as device/tolerances.py defines it.
    largest: max |a - b|. largest_relative: that over max |b|.
    within: share of values within rtol of the largest |b| of their row.
    finite: no NaN or Inf.
    first: index of the first value outside, else of the largest difference, None if all are equal.
    problem: why nothing could be compared, or how texts differ.
    empty: neither value contains a tensor, a text or a number.
    """

    pcc: float = float("nan")
    relative: float = float("inf")
    largest: float = float("inf")
    largest_relative: float = float("inf")
    within: float = 0.0
    finite: bool = True
    first: tuple[int, ...] | None = None
    problem: str = ""
    empty: bool = False

    def ok(self, budget: float) -> bool:
        return not self.problem and self.finite and self.relative <= budget

    def __str__(self) -> str:
        if self.problem:
            return self.problem
        if self.empty:
            return "no tensor to compare"
        return ("" if self.finite else "NaN or Inf, ") + f"pcc {self.pcc:.6f}, relative {self.relative:.1e}"


EQUAL = Closeness(1.0, 0.0, 0.0, 0.0, 1.0)
NOTHING = replace(EQUAL, empty=True)


def closeness(ours: Tensor, reference: Tensor, rtol: float = 1e-3) -> Closeness:
    """Compare two tensors of the same shape, of any dtype and on any device."""
    if tuple(ours.shape) != tuple(reference.shape):
        return Closeness(problem=f"shape {tuple(ours.shape)}, expected {tuple(reference.shape)}")
    if ours.is_complex() != reference.is_complex():
        words = ("complex", "real") if ours.is_complex() else ("real", "complex")
        return Closeness(problem=f"{words[0]} values, expected {words[1]} ones")
    if ours.is_complex():
        found = closeness(_pairs(ours), _pairs(reference), rtol)
        return replace(found, first=found.first[:-1]) if found.first else found
    ours, reference = _dense(ours), _dense(reference)
    a, b = ours.double(), reference.double()
    if a.numel() == 0:
        return EQUAL
    away, scale = difference(ours, reference)
    both, theirs = hidden_in_both(ours, reference), hidden(reference)
    if wrong := _otherwise_masked(ours, a, b, both, theirs):
        return wrong
    away, scale = away.masked_fill(both, 0.0), scale.masked_fill(theirs, 0.0)
    row = scale.amax(-1, keepdim=True).clamp_min(TINY) if b.dim() else scale.clamp_min(TINY)
    outside = (~(away <= rtol * row)).nonzero()
    largest = away.max().item()
    return Closeness(
        pcc=_pcc(a.masked_fill(both, 0.0).flatten(), b.masked_fill(both, 0.0).flatten()),
        relative=ratio_of_norms(away, scale) if _floating(ours, reference) else _share(away),
        largest=largest,
        largest_relative=largest / max(scale.max().item(), TINY),
        within=1 - len(outside) / a.numel(),
        finite=bool((torch.isfinite(a) | both | ~torch.isfinite(b)).all()),
        first=_first(away, outside) if largest > 0 else None,
    )


def _floating(*pair: Tensor) -> bool:
    return any(t.is_floating_point() for t in pair)


def _share(away: Tensor) -> float:
    return (away != 0).double().mean().item()


def _dense(t: Tensor) -> Tensor:
    t = t.detach().cpu()
    t = t.dequantize() if t.is_quantized else t
    return t if t.layout == torch.strided else t.to_dense()


def _pairs(t: Tensor) -> Tensor:
    return torch.view_as_real(t.detach().cpu().to(torch.complex128).resolve_conj())


def _otherwise_masked(ours: Tensor, a: Tensor, b: Tensor, both: Tensor, theirs: Tensor) -> Closeness | None:
    """The finding that one tensor masks a place that the other does not; an overflow is no mask."""
    overflowed = bool((a.isnan() | a.isposinf()).any())
    mine = hidden(ours) & (not overflowed)
    wrong = theirs & ~both & ~a.isnan() | mine & ~theirs & (b.abs() < ORDINARY)
    if not bool(wrong.any()):
        return None
    first = tuple(wrong.nonzero()[0].tolist())
    who = "the reference" if bool(theirs[first]) else "the candidate"
    words = f"{int(wrong.sum())} of {wrong.numel()} places are masked in one of the two only"
    return Closeness(first=first, problem=f"{words}, the first, {list(first)}, by {who}")


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
    """The least close pair in two trees (see tree.py). Texts and integers are close if they are equal."""
    mine, theirs = list(leaves(ours)), list(leaves(reference))
    if len(mine) != len(theirs):
        return Closeness(problem=_counted(mine, theirs))
    found = [_pair(a, b, rtol, i) for i, (a, b) in enumerate(zip(mine, theirs, strict=True))]
    return max(found, key=lambda c: (bool(c.problem), not c.finite, c.relative), default=NOTHING)


def _counted(mine: list, theirs: list) -> str:
    word = "values" if any(not isinstance(leaf, Tensor) for leaf in (*mine, *theirs)) else "tensors"
    found = f"{len(mine)} {word}, expected {len(theirs)}"
    for i, (a, b) in enumerate(zip(mine, theirs, strict=False)):
        if not isinstance(a, Tensor) and not isinstance(b, Tensor) and a != b:
            return f"{found}; number {i} is {a!r}, expected {b!r}"
    return found


def _pair(a, b, rtol: float, index: int) -> Closeness:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return closeness(a, b, rtol)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        kinds = (
            "a tensor" if isinstance(x, Tensor) else f"{type(x).__name__} {str(x)[:40]!r}" for x in (a, b)
        )
        return Closeness(problem="{}, expected {}".format(*kinds))
    texts = isinstance(a, (str, bytes)) or isinstance(b, (str, bytes))
    if not texts and (isinstance(a, (float, complex)) or isinstance(b, (float, complex))):
        return closeness(torch.tensor(a, dtype=torch.complex128), torch.tensor(b, dtype=torch.complex128))
    if a == b and type(a) is type(b):
        return EQUAL
    if isinstance(a, str) and isinstance(b, str):
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        near = slice(max(0, at - 10), at + 20)
        return Closeness(problem=f"text differs at character {at}: {a[near]!r}, expected {b[near]!r}")
    return Closeness(problem=f"value {index} is {a!r}, expected {b!r}")


def place(index: tuple[int, ...] | None, shape: tuple[int, ...]) -> str:
    """An index as text: sample and token for (b, n, …), else the plain index."""
    if index is None:
        return ""
    if len(shape) == 3:
        return f"sample {index[0]}, token {index[1]}"
    if len(shape) == 2:
        return f"token {index[0]}"
    return f"at {list(index)}"
