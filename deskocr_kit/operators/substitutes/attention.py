"""Attention from plain operators, for devices whose fused attention is missing, wrong or slow."""

from __future__ import annotations

import torch
from torch import Tensor

from .mismatch import Mismatch, same_dtype


def drop_mask(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """A bool mask of the keys to ignore, or None. NPU operators need it; masks in torch mean the opposite.

    Causal has the same meaning as in torch: query i sees keys 0..i, also if there are more keys than queries.
    Raises Mismatch for a mask that is not bool.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise Mismatch(
            f"attention: expected a bool mask (True = visible), got {mask.dtype}; get one by a comparison"
        )
    drop = None if mask is None else ~mask
    if causal:
        future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
        drop = future if drop is None else drop | future
    return drop


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Two products and a softmax in fp32: q, k, v (b, h, n, k), mask bool, True = visible.

    A query without a visible key gets zeros, as in torch. Scores are computed in the dtype of q: in fp16 they
    overflow above 65504, where a fused operator may not.
    """
    same_dtype("attention (eager)", q=q, k=k, v=v)
    if q.dim() < 2 or k.shape[-2] != v.shape[-2] or (mask is not None and mask.dim() < 2):
        raise Mismatch(
            "attention (eager): expected q, k, v (b, h, n, k) and a mask (queries, keys), got "
            + ", ".join(str(tuple(t.shape)) for t in (q, k, v, mask) if t is not None)
        )
    scores = torch.matmul(q * max(q.shape[-1], 1) ** -0.5, k.transpose(-1, -2))
    drop = drop_mask(q, k, mask, causal)
    if drop is not None:
        scores = scores.masked_fill(drop, -torch.inf)
    share = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32)).to(v.dtype)
    if mask is not None and drop is not None:
        share = share.masked_fill(drop.all(-1, keepdim=True), 0.0)
    return torch.matmul(share, v)
