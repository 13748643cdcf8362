"""RMS norm in fewer operators than the reference's eight, with the same sums in fp32."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.slots import rms_norm as reference


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (..., d): six operators, rounded where the reference rounds. A gradient takes the reference, and so
    does what is no vector of floating numbers with a weight for each.
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if learns or x.shape[-1:] != weight.shape or x.numel() == 0 or not x.is_floating_point():
        return reference(x, weight, eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    scale = torch.addcmul(length.new_full((1,), eps), length, length, value=1 / x.shape[-1]).rsqrt_()
    return torch.mul(x, scale, out=torch.empty_like(x)) * weight


def doubled(weight: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """-> a function of x (n, d): two operators. [x, -x] has the mean 0 and the mean square of x, so its layer
    norm is the RMS norm of x. fp32 inside, rounded once.
    """
    sign = torch.ones(2, 1, dtype=weight.dtype, device=weight.device)
    sign[1].neg_()
    twice = weight.detach().expand(2, -1).contiguous()

    def norm(x: Tensor) -> Tensor:
        return F.layer_norm(x[:, None] * sign, twice.shape, twice, None, eps)[:, 0]

    return norm


rms_norm.prepared = doubled
