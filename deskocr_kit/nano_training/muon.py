"""Muon: momentum, made orthogonal. For the matrices of a small network it needs fewer steps than Adam.

Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), whose five
Newton-Schulz steps and coefficients these are; the factor 0.2 √max(rows, columns), which gives an update the
size of Adam's, is from Liu et al., "Muon is scalable for LLM training" (2025). torch.optim.Muon takes two
dimensions only; the experts here are stacked in three, the filters in four.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonal(x: Tensor) -> Tensor:
    """x (…, r, c) = u s vᵀ -> about u vᵀ, in bf16: all singular values between 0.7 and 1.2."""
    x = x.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Parameters of two dimensions, three (each first index a matrix), or four (each filter a row)."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # it takes no closure
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                ahead = p.grad.lerp(momentum, group["momentum"])  # Nesterov's
                update = orthogonal(ahead.flatten(1) if p.dim() == 4 else ahead)
                size = 0.2 * max(update.shape[-2:]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view(p.shape).float(), alpha=-group["lr"] * size)
