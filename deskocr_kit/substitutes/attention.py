"""Attention from plain operators, for devices whose fused one is missing, wrong or slow."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_mask(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """What must *not* be looked at, bool, or None. NPU operators want it so; torch's masks say the opposite.

    Causal as torch has it: query i sees keys 0..i, also where there are more keys than queries.
    """
    drop = None if mask is None else ~mask
    if causal:
        future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        drop = future if drop is None else drop | future
    return drop


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Two products and a softmax in fp32: q, k, v (b, h, n, k), mask bool, True = may look."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    drop = drop_mask(q, k, mask, causal)
    if drop is not None:
        scores = scores.masked_fill(drop, -torch.inf)
    return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(v.dtype), v)
