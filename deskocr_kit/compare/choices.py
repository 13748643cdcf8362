"""Discrete choices, such as the experts of a router: near ties that rounding decides.

In 16 bits a device may choose other experts than the reference for a token whose scores are almost equal. The
output of this token is then another one, and nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .metrics import Closeness, closeness
from .tree import tensors

NEAR = 32  # units of rounding between two scores that are almost equal


class Choices(TorchDispatchMode):
    """Collects (scores, chosen indices) of every top-k: of n tokens, shapes (n, experts) and (n, k)."""

    def __init__(self):
        super().__init__()
        self.made: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function._schema.name == "aten::topk":
            scores, ids = (t.detach().cpu().flatten(0, -2) for t in (torch.atleast_2d(args[0]), output[1]))
            self.made.append((scores.double(), ids.sort(-1).values))
        return output


def other_choices(
    reference: Callable[[], object], candidate: Callable[[], object], dtype: torch.dtype
) -> tuple[list[int], int]:
    """(tokens for which the two choose otherwise, number of tokens); ([], 0) if one is no near tie."""
    runs = []
    for run in (reference, candidate):
        with Choices() as mode:
            run()
        runs.append(mode.made)
    theirs, ours = runs
    if [ids.shape for _, ids in theirs] != [ids.shape for _, ids in ours] or not theirs:
        return [], 0
    found: set[int] = set()
    for (scores, right), (_, mine) in zip(theirs, ours, strict=True):
        for token in (right != mine).any(-1).nonzero().flatten().tolist():
            if not _near(scores[token], right[token], mine[token], dtype):
                return [], 0
            found.add(token)
    return sorted(found), max(len(ids) for _, ids in theirs)


def _near(scores: Tensor, right: Tensor, mine: Tensor, dtype: torch.dtype) -> bool:
    """Whether the reference's scores of what was exchanged are almost equal."""
    lost, gained = (sorted(set(a.tolist()) - set(b.tolist())) for a, b in ((right, mine), (mine, right)))
    exchanged = scores[lost + gained]
    spread = float(exchanged.max() - exchanged.min())
    return spread <= NEAR * torch.finfo(dtype).eps / 2 * float(scores.abs().max())


def without_tokens(output, expected, tokens: list[int], n: int, rtol: float) -> Closeness | None:
    """Closeness of the first tensors of two trees, without some of their n tokens; None for other shapes."""
    ours, theirs = (next(tensors(value), None) for value in (output, expected))
    if ours is None or theirs is None or ours.shape != theirs.shape or ours.dim() < 2:
        return None
    a, b = (t.detach().cpu().flatten(0, -2) for t in (ours, theirs))
    if len(a) != n or len(tokens) == n:
        return None
    kept = [i for i in range(n) if i not in set(tokens)]
    return closeness(a[kept], b[kept], rtol)
