"""Attention from plain operators, for devices whose fused one is missing, wrong or slow."""

from __future__ import annotations

import torch
from torch import Tensor

from .mismatch import Mismatch, same_dtype


def drop_mask(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """What must *not* be looked at, bool, or None. NPU operators want it so; torch's masks say the opposite.

    Causal as torch has it: query i sees keys 0..i, also where there are more keys than queries. Raises
    Mismatch for a mask that is not bool.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise Mismatch(f"attention: a bool mask is wanted, True = may look, got {mask.dtype}; compare first")
    drop = None if mask is None else ~mask
    if causal:
        future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        drop = future if drop is None else drop | future
    return drop


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Two products and a softmax in fp32: q, k, v (b, h, n, k), mask bool, True = may look.

    A query that may look nowhere gets zeros, as in torch. Scores are made in the dtype of q: in fp16 they end
    at 65504, where a fused operator may go on.
    """
    same_dtype("attention (eager)", q=q, k=k, v=v)
    if q.dim() < 2 or k.shape[-2] != v.shape[-2] or (mask is not None and mask.dim() < 2):
        raise Mismatch(
            "attention (eager): q, k, v (b, h, n, k) and a mask of (queries, keys) are wanted, got "
            + ", ".join(str(tuple(t.shape)) for t in (q, k, v, mask) if t is not None)
        )
    scores = torch.matmul(q * max(q.shape[-1], 1) ** -0.5, k.transpose(-1, -2))
    drop = drop_mask(q, k, mask, causal)
    if drop is not None:
        scores = scores.masked_fill(drop, -torch.inf)
    share = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(v.dtype)
    if mask is not None:
        share = share.masked_fill(drop.all(-1, keepdim=True), 0.0)
    return torch.matmul(share, v)
