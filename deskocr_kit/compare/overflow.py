"""Name the operator that makes the first NaN or Inf, not the one that receives it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..device.dtypes import dtype_name
from .masks import hidden
from .operators import OperatorFault, alignment
from .tree import tensors
from .walk import Step, Walk


def first_overflow(
    reference: Callable[[], object], candidate: Callable[[], object], skipped=((), ())
) -> OperatorFault | None:
    """The first operator of `candidate()` with a NaN or Inf that the same one of `reference()` has not.

    skipped: modules (of the reference, of the candidate) whose operators do not count.
    """
    theirs, ours = (Walk(s).record(run).steps for s, run in zip(skipped, (reference, candidate), strict=True))
    pairs = alignment([s.operator for s in ours], [s.operator for s in theirs])
    for i, step in enumerate(ours):
        original = theirs[pairs[i]] if i in pairs else None
        if _finite(step, original) or (original is not None and not _finite(original, None)):
            continue
        return OperatorFault(step.operator, step.site, _described(step, original))
    return None


def _described(step: Step, original: Step | None) -> str:
    dtype = next((t.dtype for t in tensors(step.output) if t.is_floating_point()), torch.float32)
    kind, limit = dtype_name(dtype), torch.finfo(dtype).max
    if original is None:
        return f"NaN or Inf in {step.operator}, in {kind}: keep this in fp32"
    reach = max((_reach(t) for t in tensors(original.output)), default=0.0)
    if reach > limit:
        more = f"more than {kind}'s {limit:.6g}: keep this in fp32"
        return f"overflow: {step.operator} of the reference reaches {reach:.3g}, {more}"
    only = f"although the reference reaches only {reach:.3g}: an overflow of {kind} inside"
    return f"NaN or Inf in {step.operator}, {only}"


def _finite(step: Step, original: Step | None) -> bool:
    """Whether a result has no NaN and no Inf. Minus infinity is a mask where the reference masks too."""
    expected = list(tensors(original.output)) if original is not None else []
    for i, t in enumerate(tensors(step.output)):
        if not t.is_floating_point():
            continue
        if bool((t.isnan() | t.isposinf()).any()):
            return False
        paired = i < len(expected) and expected[i].shape == t.shape
        if paired and bool((t.isneginf().cpu() & ~hidden(expected[i])).any()):
            return False
    return True


def _reach(t: torch.Tensor) -> float:
    if not t.is_floating_point() or not t.numel():
        return 0.0
    return float(t.detach().cpu().double().abs().masked_fill(hidden(t), 0.0).max())
