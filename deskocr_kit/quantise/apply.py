"""Quantise a loaded model in place, one layer after the other, so that memory never holds it twice."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn as nn
from torch import Tensor

from model.decoder import Experts, MoE

from .modules import Held, QuantLinear, moe
from .pack import Packed, pack


@dataclass(frozen=True)
class LayerError:
    """What the rounding cost one matrix (of experts: all of a layer).

    relative: |unpacked - w| / |w|, norms. largest: max |unpacked - w|, in steps (a half is the limit).
    """

    name: str
    relative: float
    largest: float


def quantise(model: nn.Module, bits: int = 8, group: int | None = None) -> list[LayerError]:
    """All linear layers and experts, in place. -> the error of each, worst first.

    As they are stay: the output matrix (it also tells the model's dtype), the router (it decides, and is
    small), norms, embeddings, position tables, convolutions. Such a model cannot be saved.

    Raises ValueError for a model that is quantised already, and as `pack`.
    """
    if any(isinstance(module, Held) for module in model.modules()):
        raise ValueError("this model is quantised already; load it again first")
    routers = {id(module.gate) for module in model.modules() if isinstance(module, MoE)}
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, Experts)
        or (isinstance(module, nn.Linear) and name != "lm_head" and id(module) not in routers)
    ]
    errors = []
    while found:
        name, module = found.pop(0)
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        if isinstance(module, Experts):
            for each in ("gate_up_proj", "down_proj"):
                weight = getattr(module, each)
                packed = pack(weight, bits, group)
                errors.append(error_of(f"{name}.{each}", weight, packed))
                delattr(module, each)
                setattr(module, each, Held(packed))
            parent.slots = replace(parent.slots, moe=moe)  # of this layer only: a plan cannot undo it
        else:
            packed = pack(module.weight, bits, group)
            errors.append(error_of(name, module.weight, packed))
            setattr(parent, attribute, QuantLinear(packed, module.bias))
    return sorted(errors, key=lambda each: -each.relative)


def error_of(name: str, weight: Tensor, packed: Packed) -> LayerError:
    """One matrix at a time, in fp32."""
    pairs = [(weight, packed)] if weight.dim() == 2 else [(weight[e], packed[e]) for e in range(len(packed))]
    away = norm = largest = 0.0
    for w, p in pairs:
        w = w.detach().float()
        d = (p.unpack() - w).abs()
        away, norm = away + d.square().sum().item(), norm + w.square().sum().item()
        largest = max(largest, (d / p.steps().clamp_min(1e-30)).max().item())
    return LayerError(name, (away / max(norm, 1e-60)) ** 0.5, largest)


def weight_bytes(model: nn.Module) -> int:
    """Of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
