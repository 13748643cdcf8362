"""Replacements for a linear layer and for a mixture of experts."""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from model.slots import swiglu

from .pack import Packed
from .product import product


class Held(nn.Module):
    """A Packed as a module, so that it moves with its model. `model.half()` keeps the fp32 scales."""

    values: Tensor
    scales: Tensor

    def __init__(self, packed: Packed):
        super().__init__()
        self.register_buffer("values", packed.values)
        self.register_buffer("scales", packed.scales)
        self.columns, self.bits, self.group = packed.columns, packed.bits, packed.group

    @property
    def packed(self) -> Packed:
        return Packed(self.values, self.scales, self.columns, self.bits, self.group)

    def _apply(self, fn, recurse=True):
        before = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != before.dtype:
            self.scales = before.to(self.scales.device)
        return self


class QuantLinear(nn.Module):
    """A linear layer with a quantised weight: x (…, in) -> (…, out)."""

    def __init__(self, weight: Packed, bias: nn.Parameter | None):
        super().__init__()
        self.weight, self.bias = Held(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight.packed, self.bias)


def moe(x: Tensor, gate_up: Held, down: Held, ids: Tensor, weights: Tensor) -> Tensor:
    """The slot `moe` for quantised experts; only chosen ones are unpacked. Shapes as for model.slots.moe.

    Few tokens on a device: the integers of the chosen experts are gathered, without a wait. Otherwise one
    expert after the other, so that at most one is unpacked at a time (one wait per call).
    """
    first, second = gate_up.packed, down.packed
    if x.device.type != "cpu" and ids.numel() <= len(first):
        return _gathered(x, first, second, ids, weights)
    if len(x) == 1:  # decoding: no search for the tokens of an expert
        y = torch.cat([product(swiglu(product(x, first[e])), second[e]) for e in ids[0].tolist()])
        return (y.float() * weights[0, :, None]).sum(0, keepdim=True).to(x.dtype)
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in ids.unique().tolist():
        token, slot = (ids == expert).nonzero(as_tuple=True)
        y = product(swiglu(product(x[token], first[expert])), second[expert])
        out = out.index_add(0, token, y.float() * weights[token, slot, None])
    return out.to(x.dtype)


def _gathered(x: Tensor, gate_up: Packed, down: Packed, ids: Tensor, weights: Tensor) -> Tensor:
    n, top = ids.shape
    chosen = ids.reshape(-1)
    rows = x[:, None].expand(n, top, x.shape[-1]).reshape(n * top, 1, -1)
    hidden = swiglu(torch.bmm(rows, gate_up[chosen].unpack(x.dtype).transpose(1, 2)))
    y = torch.bmm(hidden, down[chosen].unpack(x.dtype).transpose(1, 2)).view(n, top, -1)
    return (y.float() * weights[..., None]).sum(1).to(x.dtype)
