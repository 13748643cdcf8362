"""Probes of any other model: the calls that it makes, with their own activations.

Only calls that `adapt` can replace are probed: convolutions, in the 2d form that `adapt` gives them, and
masked_scatter in its three forms.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

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


#: {operator: slot} of the operators that the slots replace.
SLOT_OF = {
    "aten::convolution": "conv2d", "aten::_convolution": "conv2d",
    "aten::masked_scatter": "masked_scatter_", "aten::masked_scatter_": "masked_scatter_",
}  # fmt: skip


def describe(module: nn.Module) -> str:
    """One line for a plan's fingerprint: the class, and a digest of the names and shapes of its weights."""
    shapes = "\n".join(f"{name} {tuple(p.shape)}" for name, p in module.named_parameters())
    return f"{type(module).__name__} {hashlib.sha256(shapes.encode()).hexdigest()[:12]}"


class _Scatters(TorchFunctionMode):
    """Collects (place, self, mask, source) of every masked_scatter; `self` with its broadcast shape."""

    def __init__(self):
        super().__init__()
        self.calls: dict[str, tuple] = {}
        self.number = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in SCATTERS:
            self.number += 1
            x, mask, source = (each.detach().cpu() for each in (*args, *(kwargs or {}).values())[:3])
            shape = torch.broadcast_shapes(x.shape, mask.shape)
            self.calls.setdefault(call_site(), (x.expand(shape).clone(), mask.clone(), source.clone()))
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """Counts the convolutions and masked_scatter calls that reach a device, from whatever code."""

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[SLOT_OF.get(function._schema.name, "")] += 1
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def probes_of(
    module: nn.Module, run: Callable[[nn.Module], object], hard: bool = True
) -> tuple[list[Probe], list[str]]:
    """(probes, notes) of a module.

    One real probe per kind of convolution and per line with a masked_scatter, and with `hard` the hard cases
    of the slots that occur; a note for every slot with calls that cannot be probed.
    """
    seen: dict[tuple, tuple[str, tuple]] = {}
    reached = 0

    def conv2d_(x, weight, bias, stride, padding, dilation=(1, 1), groups=1):
        nonlocal reached
        reached += 1
        assert adapted.running is not None  # this function is called by what `adapt` patched
        key = (tuple(x.shape), tuple(weight.shape), *map(tuple, (stride, padding, dilation)), groups)
        call = [t if t is None else t.detach().cpu() for t in (x, weight, bias)] + [*key[2:4]]
        special = groups != 1 or tuple(dilation) != (1, 1)
        seen.setdefault(key, (adapted.running.path or "", tuple(call + [*key[4:]] * special)))
        return F.conv2d(x, weight, bias, *key[2:])

    with _Scatters() as scatters, adapt(module, {"conv2d": conv2d_}) as adapted, _Operators() as every:
        run(module)
    found = [Probe("conv2d", path, _as_is(call), real=True) for path, call in seen.values()]
    found += [
        Probe("masked_scatter_", place, _as_is(call), real=True, writes=True, call=_in_place)
        for place, call in scatters.calls.items()
    ]
    notes = []
    for slot, probed in (("conv2d", reached), ("masked_scatter_", scatters.number)):
        if (others := every.counts[slot] - probed) > 0:
            why = "; ".join(f"{path or 'the module'}: {why}" for path, why in adapted.left.items())
            notes.append(
                f"{slot}: {others} of {every.counts[slot]} calls cannot be exchanged and are not proved"
                + (f" ({why})" if why and slot == "conv2d" else "")
            )
    slots = {each.slot for each in found}
    return found + [probe for probe in _hard() if hard and probe.slot in slots], notes


def _as_is(call: tuple):
    return lambda generator: call


def _in_place(function, x, mask, source):
    function(x, mask, source)
    return x


def _hard() -> list[Probe]:
    """The hard cases of both slots; their sizes do not depend on a model."""
    sizes = Sizes.of(DeepseekOCRConfig())
    return [probe for probe in (*conv2d(sizes), *masked_scatter(sizes)) if not probe.real]
