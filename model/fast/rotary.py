"""Rotary positions in three operators instead of five: no negated half, no concatenation."""

from __future__ import annotations

from torch import Tensor


def check_angles(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ValueError unless x, cos and sin have the same, even width."""
    k = x.shape[-1]
    if k % 2 or cos.shape[-1] != k or sin.shape[-1] != k:
        raise ValueError(
            f"rotary: expected an even width and as many angles, got x {tuple(x.shape)}, cos "
            f"{tuple(cos.shape)}, sin {tuple(sin.shape)}"
        )


def rotary_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation: x (b, h, n, k); cos, sin (b, 1, n, k) -> (b, h, n, k)."""
    check_angles(x, cos, sin)
    half = x.shape[-1] // 2
    rotated = x * cos
    rotated[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return rotated
