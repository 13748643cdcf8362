"""The definition of a launch for operators that are known by name only, as in the traces of profilers."""

from __future__ import annotations

import functools

import torch

from .definition import effect_of, operator_name
from .operator_mode import counts_as_parts


@functools.cache
def effect_of_name(name: str) -> str:
    """ "launch", "view", "alloc", "read", or "parts" for what counts as the operators inside it.

    name: such as "aten::add", without an overload; the overloads of one operator have the same effect except
    where they write to an argument, which does not change it. Other names ("ProfilerStep", autograd nodes)
    are "parts": they do nothing themselves.
    """
    space, _, rest = name.partition("::")
    packet = getattr(getattr(torch.ops, space, None), rest.partition(".")[0], None) if rest else None
    if packet is None or not hasattr(packet, "overloads"):
        return "parts"
    # Those with an `out` argument have kernels of their own, and hardly anyone calls them.
    plain = [each for each in packet.overloads() if not each.endswith("out")] or packet.overloads()
    overloads = [
        each for each in (getattr(packet, name) for name in plain) if operator_name(each) in _known()
    ]
    whole = [each for each in overloads if not counts_as_parts(each)]
    if not whole:
        return "parts"
    effects = {effect_of(each) for each in whole}
    return "launch" if "launch" in effects else effects.pop()


@functools.cache
def _known() -> frozenset[str]:
    """Operators of the dispatcher. Others, such as aten::to.prim_Device, are TorchScript's own."""
    return frozenset(torch._C._dispatch_get_all_op_names())
