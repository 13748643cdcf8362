"""Residual layers whose sums are computed together with the norms behind them.

A layer of each encoder and of the decoder is x + branch(norm(x)), twice. An implementation in the slot
`add_layer_norm` or `add_rms_norm` computes a sum and the next norm at once, also across the border of two
layers. Then the norms and the branches of the layers are taken, and the layers themselves are not called.
That needs layers that nobody has replaced and nobody listens to; otherwise they run one after another.

Every layer has `branches(*how)`: its two norms, each with the function that follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch.nn as nn
from torch import Tensor

from .slots import Slots, add_layer_norm, add_rms_norm

Branch = tuple[nn.Module, Callable[[Tensor], Tensor]]  # a norm, and what follows it


def untouched(modules: Iterable[nn.Module], kinds: set[type], slots: Slots) -> bool:
    """Whether code may bypass these modules: none was replaced (e.g. quantised) and none has hooks."""
    return all(
        type(module) in kinds
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and getattr(module, "slots", slots) is slots
        for module in modules
    )


def run_layers(x: Tensor, layers: nn.ModuleList, kind: type, slots: Slots) -> Tensor:
    """x (b, …, d) through layers of a `kind` with layer norms."""
    joined = slots.add_layer_norm is not add_layer_norm and untouched(layers, {kind}, slots)
    branches = [branch for layer in layers for branch in layer.branches()] if joined else []  # type: ignore[operator]
    if not branches or not untouched((norm for norm, _ in branches), {nn.LayerNorm}, slots):
        for layer in layers:
            x = layer(x)
        return x
    x, y = _through(x, branches, lambda x, y, n: slots.add_layer_norm(x, y, n.weight, n.bias, n.eps))
    return x + y


def run_layers_and_norm(
    x: Tensor,
    layers: nn.ModuleList,
    kinds: tuple[type, type],
    slots: Slots,
    last: nn.Module,
    kept: slice,
    how: tuple,
) -> Tensor:
    """x (b, n, d) through layers with RMS norms, then `last`, the norm of the tokens `kept`.

    kinds: the types of a layer and of its norms. how: the other arguments of every layer.
    """
    joined = slots.add_rms_norm is not add_rms_norm and untouched(layers, {kinds[0]}, slots)
    branches = [branch for layer in layers for branch in layer.branches(*how)] if joined else []  # type: ignore[operator]
    norms = [norm for norm, _ in branches] + [last]
    if not branches or not untouched(norms, {kinds[1]}, slots):
        for layer in layers:
            x = layer(x, *how)
        return last(x[:, kept])
    x, y = _through(x, branches, lambda x, y, n: slots.add_rms_norm(x, y, n.weight, n.eps))
    return slots.add_rms_norm(x[:, kept], y[:, kept], last.weight, last.eps)[1]


def _through(x: Tensor, branches: list[Branch], add_norm: Callable) -> tuple[Tensor, Tensor]:
    """x + branch(norm(x)) for each branch in turn -> (x, the last branch's result, still to be added)."""
    norm, branch = branches[0]
    y = branch(norm(x))
    for norm, branch in branches[1:]:
        x, normed = add_norm(x, y, norm)
        y = branch(normed)
    return x, y
