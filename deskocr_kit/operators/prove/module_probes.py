"""Probes of any other model: the calls that it makes, with their own activations.

Only calls that `adapt` can replace are probed: convolutions, in the 2d form that `adapt` gives them, and
masked_scatter in its three forms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from model import DeepseekOCRConfig

from ...opcount.recorder import call_site
from ..adapt.module import adapt
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
    slots that occur. Raises ValueError if neither occurs.
    """
    seen: dict[tuple, tuple[str, tuple]] = {}
    path = [""]

    def conv2d_(x, weight, bias, stride, padding, dilation=(1, 1), groups=1):
        key = (tuple(x.shape), tuple(weight.shape), *map(tuple, (stride, padding, dilation)), groups)
        call = [t if t is None else t.detach().cpu() for t in (x, weight, bias)] + [*key[2:4]]
        special = groups != 1 or tuple(dilation) != (1, 1)
        seen.setdefault(key, (path[0], tuple(call + [*key[4:]] * special)))
        return F.conv2d(x, weight, bias, *key[2:])

    def note(name: str):
        return lambda layer, args: path.__setitem__(0, name)

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in module.named_modules()]
    try:
        with _Scatters() as scatters, adapt(module, {"conv2d": conv2d_}):
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
            f"{type(module).__name__} makes no convolution or masked_scatter call that can be replaced"
        )
    return found + [probe for probe in _hard() if probe.slot in {each.slot for each in found}]


def _as_is(call: tuple):
    return lambda generator: call


def _in_place(function, x, mask, source):
    function(x, mask, source)
    return x


def _hard() -> list[Probe]:
    """The hard cases of both slots; their sizes do not depend on a model."""
    sizes = Sizes.of(DeepseekOCRConfig())
    return [probe for probe in (*conv2d(sizes), *masked_scatter(sizes)) if not probe.real]
