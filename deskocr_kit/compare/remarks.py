"""What a comparison did not see, and why it may be unfair."""

from __future__ import annotations

import torch.nn as nn

from .trace import Call, submodule


def never_compared(reference: nn.Module, names: list[str], calls: list[Call]) -> list[str]:
    """The blocks without a rung, and why. A block whose weights are tied to a block with a rung has none."""
    called = {call.module for call in calls}
    compared = {id(p) for name in called for p in submodule(reference, name).parameters()}
    found = []
    for name in names:
        mine = {id(p) for p in submodule(reference, name).parameters()}
        if name not in called and not (mine and mine <= compared):
            found.append(f"{name or 'the model'}: its forward is not called, or returns None")
    return found


def other_attention(reference: nn.Module, candidate: nn.Module) -> str:
    """A remark if two models of transformers use two attention functions, because these differ in masks."""
    theirs, ours = (
        getattr(getattr(m, "config", None), "_attn_implementation", None) for m in (reference, candidate)
    )
    if theirs == ours:
        return ""
    return (
        f"the attention is {ours!r}, the reference's {theirs!r}, and their masks differ: load both with one"
    )
