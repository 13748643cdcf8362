"""Quantise a loaded model in place, one layer after the other, without a second copy in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn as nn
from torch import Tensor

from model.decoder import Experts, MoE

from .modules import Held, QuantLinear, moe
from .pack import Packed, pack


@dataclass(frozen=True)
class LayerError:
    """The rounding error of one matrix (for experts: of all of a layer).

    relative: |unpacked - w| / |w|, norms. largest: max |unpacked - w|, in steps (a half is the limit).
    """

    name: str
    relative: float
    largest: float


def quantise(model: nn.Module, bits: int = 8, group: int | None = None) -> list[LayerError]:
    """Quantise all linear layers and experts in place; return the error of each, worst first.

    Unchanged: the output matrix (it also defines the model's dtype), the router (its choices are sensitive,
    and it is small), norms, embeddings, position tables, convolutions. A quantised model cannot be saved.

    Args:
        bits: 8 or 4.
        group: columns that share a scale, see `pack`.

    Raises:
        ValueError: the model is quantised already; or as for `pack`.
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
            assert isinstance(parent, MoE)
            parent.slots = replace(parent.slots, moe=moe)  # only in this layer: a plan cannot replace it
        else:
            packed = pack(module.weight, bits, group)
            errors.append(error_of(name, module.weight, packed))
            setattr(parent, attribute, QuantLinear(packed, module.bias))
    return sorted(errors, key=lambda each: -each.relative)


def error_of(name: str, weight: Tensor, packed: Packed) -> LayerError:
    """The error of a packed weight; one matrix at a time, in fp32."""
    pairs = [(weight, packed)] if weight.dim() == 2 else [(weight[e], packed[e]) for e in range(len(packed))]
    away = norm = largest = 0.0
    for w, p in pairs:
        w = w.detach().float()
        d = (p.unpack() - w).abs()
        away, norm = away + d.square().sum().item(), norm + w.square().sum().item()
        largest = max(largest, (d / p.steps().clamp_min(1e-30)).max().item())
    return LayerError(name, (away / max(norm, 1e-60)) ** 0.5, largest)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
