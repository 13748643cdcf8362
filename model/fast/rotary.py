"""Rotary positions with three operators for five: no negated half, no joined copy."""

from __future__ import annotations

from torch import Tensor


def check_angles(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ValueError unless x has an even width k, and cos and sin the same."""
    k = x.shape[-1]
    if k % 2 or cos.shape[-1] != k or sin.shape[-1] != k:
        raise ValueError(
            f"rotary: an even width is wanted, and as many angles: x {tuple(x.shape)}, cos "
            f"{tuple(cos.shape)}, sin {tuple(sin.shape)}"
        )


def rotary_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (b, h, n, k); cos, sin (b, 1, n, k), half-split -> (b, h, n, k)."""
    check_angles(x, cos, sin)
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned
