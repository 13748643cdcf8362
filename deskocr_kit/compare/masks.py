"""Attention masks: values that stand for minus infinity.

A mask in fp32 holds the minimum of fp32, its counterpart in fp16 the minimum of fp16 or -inf. As numbers they
differ, but a softmax makes 0 of each. So they are one class, and no activation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

SHARE = 0.99  # of a minimum: a score was added to the mask
HALF = torch.finfo(torch.float16).min


def hidden(t: Tensor) -> Tensor:
    """Where `t` masks, as bool: -inf, at most 0.99 times the minimum of its dtype, or a written constant.

    Written constants are the minimum of fp16 (a mask that was cast to a wider dtype) and minus powers of ten
    beyond it, such as -1e9, which become -inf in fp16.
    """
    if not t.is_floating_point():
        return torch.zeros(t.shape, dtype=torch.bool)
    kind, x = torch.finfo(t.dtype), t.detach().cpu().double()
    low = x <= SHARE * kind.min
    beyond = x <= SHARE * HALF
    if not bool(beyond.any()):
        return low
    power = x.abs().clamp_min(1.0).log10()
    written = ((power - power.round()).abs() <= kind.eps) | ((x - HALF).abs() <= kind.eps * -HALF)
    return low | beyond & written


def hidden_in_both(ours: Tensor, reference: Tensor) -> Tensor:
    """Where both tensors mask. `ours` may be a fp16 minimum in a wider dtype, with a score added."""
    theirs = hidden(reference)
    if not ours.is_floating_point():
        return torch.zeros_like(theirs)
    return theirs & (hidden(ours) | (ours.detach().cpu().double() <= SHARE * HALF))


def fit(new: Tensor, t: Tensor) -> Tensor:
    """`new`, a copy of `t` in a dtype of a smaller range: finite values do not become infinite in it.

    They become its largest or smallest number, in place. No instrument sees the operators of this function.
    """
    if type(t) not in (Tensor, torch.nn.Parameter) or t.is_meta or new.is_meta or not t.numel():
        return new  # it has no values
    limit = torch.finfo(new.dtype).max
    if torch.finfo(t.dtype).max <= limit:
        return new
    with _disable_current_modes():
        lost = new.isinf() & t.to(new.device).isfinite()
        if bool(lost.any()):
            new.copy_(torch.where(lost, new.sign().mul(limit), new))
    return new


def exceeds(t: Tensor, dtype: torch.dtype) -> bool:
    """Whether `t` has a finite value, other than a mask, that is infinite in `dtype`."""
    if not t.is_floating_point() or not dtype.is_floating_point:
        return False
    x = t.detach()
    lost = x.isfinite() & x.to(dtype).isinf()
    return bool(lost.any()) and bool((lost.cpu() & ~hidden(t)).any())
