"""Compare router decisions, and replace them by those of the reference.

In the output of a layer, a wrong result of the right expert looks like the right result of a wrong expert.
With the decisions of the reference replayed, the remaining error is that of the experts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn

Decisions = dict[str, list[tuple]]  # module -> per call (ids, weights)


@dataclass(frozen=True)
class RouterRow:
    """One layer.

    same: share of tokens with the same set of experts. ratio: candidate's weights divided by the reference's,
    (smallest, largest), for tokens with the same set. sums: mean sum of the weights of a token, (candidate,
    reference). first: the first token with another set.
    """

    module: str
    same: float
    ratio: tuple[float, float]
    sums: tuple[float, float]
    first: int | None
    experts: tuple[int, int] | None = None  # per token (candidate, reference), if they differ

    @property
    def verdict(self) -> str:
        if self.experts is not None:
            return f"{self.experts[0]} experts per token, expected {self.experts[1]}"
        off = max(abs(self.ratio[0] - 1), abs(self.ratio[1] - 1))
        if off > 0.05 and abs(self.sums[0] - 1) < 1e-2 < abs(self.sums[1] - 1):
            return f"weights are renormalised: they sum to 1, those of the reference to {self.sums[1]:.3f}"
        if off > 0.05:
            return f"weights are {self.ratio[0]:.3g} to {self.ratio[1]:.3g} times the reference's"
        if self.same < 1:
            return f"other experts for {1 - self.same:.1%} of the tokens, first for token {self.first}"
        return "agrees"


def routers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with a method `route(x) -> (ids, weights)`."""
    return {name: m for name, m in model.named_modules() if callable(getattr(m, "route", None))}


@contextlib.contextmanager
def _rerouted(model: nn.Module, wrap: Callable) -> Iterator[None]:
    found = routers(model)
    for name, module in found.items():
        module.route = wrap(name, module.route)
    try:
        yield
    finally:
        for module in found.values():
            del module.route  # restores the method of the class


def decisions(model: nn.Module, run: Callable[[], object]) -> Decisions:
    """The decisions of every router during `run()`."""
    seen: Decisions = {}

    def wrap(name, route):
        def watching(x):
            ids, weights = route(x)
            seen.setdefault(name, []).append((ids.detach().cpu(), weights.detach().cpu().float()))
            return ids, weights

        return watching

    with _rerouted(model, wrap):
        run()
    return seen


@contextlib.contextmanager
def replay(model: nn.Module, chosen: Decisions) -> Iterator[None]:
    """In this context, routers return the given decisions, in order of calls.

    Raises:
        ValueError: no decision was recorded for a call with this number of tokens.
    """
    at = dict.fromkeys(chosen, 0)

    def wrap(name, route):
        def replayed(x):
            calls, turn = chosen.get(name, ()), at.get(name, 0)
            if turn >= len(calls) or len(calls[turn][0]) != len(x):
                raise ValueError(f"router {name}: no decision recorded for call {turn} of {len(x)} tokens")
            at[name] = turn + 1
            ids, weights = calls[turn]
            return ids.to(x.device), weights.to(x.device)

        return replayed

    with _rerouted(model, wrap):
        yield


def _counted(name: str, ours, theirs, weights_a, weights_b) -> RouterRow:
    """A row for routers that choose another number of experts, or that received other tokens."""
    sums = (weights_a.sum(-1).mean().item(), weights_b.sum(-1).mean().item())
    return RouterRow(name, 0.0, (1.0, 1.0), sums, 0, (ours.shape[-1], theirs.shape[-1]))


def compare_decisions(ours: Decisions, theirs: Decisions) -> list[RouterRow]:
    """Compare decisions layer by layer, over all calls."""
    rows = []
    for name, calls in theirs.items():
        if name not in ours:
            continue
        ids_a, weights_a = (torch.cat(t) for t in zip(*ours[name], strict=True))
        ids_b, weights_b = (torch.cat(t) for t in zip(*calls, strict=True))
        if ids_a.shape != ids_b.shape:
            rows.append(_counted(name, ids_a, ids_b, weights_a, weights_b))
            continue
        (ids_a, order_a), (ids_b, order_b) = ids_a.sort(-1), ids_b.sort(-1)  # topk promises no order
        weights_a, weights_b = weights_a.gather(-1, order_a), weights_b.gather(-1, order_b)
        same = (ids_a == ids_b).all(-1)
        ratio = (weights_a / weights_b.clamp_min(1e-30))[same]
        bounds = (ratio.min().item(), ratio.max().item()) if ratio.numel() else (1.0, 1.0)
        sums = (weights_a.sum(-1).mean().item(), weights_b.sum(-1).mean().item())
        first = int((~same).nonzero()[0]) if not bool(same.all()) else None
        rows.append(RouterRow(name, same.float().mean().item(), bounds, sums, first))
    return rows
