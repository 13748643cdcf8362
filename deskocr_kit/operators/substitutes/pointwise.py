"""Norm, rotation and activations with fewer operators, or with the formula written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.fast.rotary import check_angles

from .mismatch import Mismatch


def fused_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """torch's own operator: one call, one kernel if the device has one. Rounds once, after the weight."""
    if weight.shape != x.shape[-1:] or not x.is_floating_point():
        raise Mismatch(
            f"rms_norm (fused_rms_norm): expected one weight per value of the last dimension and a float "
            f"dtype, got x {tuple(x.shape)} {x.dtype} and weight {tuple(weight.shape)}; use the reference"
        )
    if weight.dtype != x.dtype:  # torch's rounds to x's dtype; the product promotes, as the reference does
        return weight * F.rms_norm(x, weight.shape, None, eps)
    return F.rms_norm(x, weight.shape, weight, eps)


def rotary_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotation on halves, without a negated copy: x (b, h, n, k); cos, sin (b, 1, n, k)."""
    check_angles(x, cos, sin)
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    c, s = cos[..., :half], sin[..., :half]
    return torch.cat((left * c - right * s, right * cos[..., half:] + left * sin[..., half:]), -1)


def swiglu_in_place(x: Tensor) -> Tensor:
    """silu(gate) * up with the product written into silu(gate): one tensor less."""
    gate, up = x.chunk(2, -1)
    return F.silu(gate).mul_(up)


def gelu_erf(x: Tensor) -> Tensor:
    """The exact gelu from erf, in fp32: for devices whose gelu operator silently uses the tanh formula."""
    if not x.is_floating_point():
        raise Mismatch(f"gelu (gelu_erf): expected a float dtype, got {x.dtype}; cast before the call")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * 0.5 * (1.0 + torch.erf(wide * 2**-0.5))).to(x.dtype)


def quick_gelu_silu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x) = silu(1.702 x) / 1.702: one product of tensors less.

    The largest fp16 number is 65504, so 1.702 x overflows from 38485 on: fp16 is computed in fp32.
    """
    wide = x.float() if x.dtype == torch.float16 else x
    return (F.silu(wide * 1.702) * (1 / 1.702)).to(torch.result_type(x, 1.0))
