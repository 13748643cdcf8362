"""Probes of a model that is not ours: the calls that it makes itself, with their own activations.

Only what `adapt` can exchange is asked: plain Conv2d layers, and masked_scatter in its three spellings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn as nn
from torch.overrides import TorchFunctionMode

from ..census.recorder import call_site
from .probe import Probe, Sizes
from .probes_vision import conv2d, masked_scatter

SCATTERS = {
    torch.Tensor.masked_scatter,
    torch.Tensor.masked_scatter_,
    torch.masked_scatter,
}


def describe(module: nn.Module) -> str:
    """One line for a plan's fingerprint: the class, and a digest of the names and shapes of its weights."""
    shapes = "\n".join(f"{name} {tuple(p.shape)}" for name, p in module.named_parameters())
    return f"{type(module).__name__} {hashlib.sha256(shapes.encode()).hexdigest()[:12]}"


class _Scatters(TorchFunctionMode):
    """Collects (place, self, mask, source) of every masked_scatter; `self` with its broadcast shape."""

    def __init__(self):
        super().__init__()
        self.calls: dict[str, tuple] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in SCATTERS:
            x, mask, source = (each.detach().cpu() for each in (*args, *(kwargs or {}).values())[:3])
            shape = torch.broadcast_shapes(x.shape, mask.shape)
            self.calls.setdefault(call_site(), (x.expand(shape).clone(), mask.clone(), source.clone()))
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def probes_of(module: nn.Module, run: Callable[[nn.Module], object]) -> list[Probe]:
    """One real probe per kind of convolution and per line with a masked_scatter, and the hard cases of the
    slots that occur. Raises ValueError if neither occurs."""
    seen: dict[tuple, tuple[str, tuple]] = {}

    def note(path: str):
        def hook(layer, args):
            x = args[0]
            key = (tuple(x.shape), tuple(layer.weight.shape), layer.stride, layer.padding)
            call = (x, layer.weight, layer.bias, layer.stride, layer.padding)
            seen.setdefault(key, (path, tuple(t.detach().cpu() if torch.is_tensor(t) else t for t in call)))

        return hook

    hooks = [
        layer.register_forward_pre_hook(note(path))
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d) and plain(layer)
    ]
    try:
        with _Scatters() as scatters:
            run(module)
    finally:
        for hook in hooks:
            hook.remove()
    found = [Probe("conv2d", path, _as_is(call), real=True) for path, call in seen.values()]
    found += [
        Probe("masked_scatter_", place, _as_is(call), real=True, writes=True, call=_in_place)
        for place, call in scatters.calls.items()
    ]
    if not found:
        raise ValueError(
            f"{type(module).__name__} has no plain Conv2d and no masked_scatter: nothing to exchange"
        )
    return found + [probe for probe in _hard() if probe.slot in {each.slot for each in found}]


def plain(layer: nn.Conv2d) -> bool:
    """What every candidate takes; others `adapt` exchanges where it can, or leaves and names."""
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _as_is(call: tuple):
    return lambda generator: call


def _in_place(function, x, mask, source):
    function(x, mask, source)
    return x


def _hard() -> list[Probe]:
    """The hard cases of both slots; their sizes do not depend on a model."""
    from model import DeepseekOCRConfig

    sizes = Sizes.of(DeepseekOCRConfig())
    return [probe for probe in (*conv2d(sizes), *masked_scatter(sizes)) if not probe.real]
