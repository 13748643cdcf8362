"""Rotary positions with three operators for five: no negated half, no joined copy."""

from __future__ import annotations

from torch import Tensor


def rotary_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (b, h, n, k); cos, sin (b, 1, n, k), half-split -> (b, h, n, k)."""
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned
