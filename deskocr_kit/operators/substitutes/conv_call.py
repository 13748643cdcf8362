"""The arguments of a convolution as plain numbers. Invalid ones are reported here, for all candidates.

The rules are those of torch.nn.functional.conv2d, unusual ones included: a tuple or list of one number counts
for both directions; "same" pads one more below and to the right if the sum is odd; a picture without channels
gives a map without channels.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .mismatch import Mismatch, same_device, same_dtype

Pair = tuple[int, int]  # vertical, horizontal


class ConvCall(NamedTuple):
    """The numbers of one call. size: of the result. batched: whether the picture has a batch dimension."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    size: Pair
    batched: bool

    def result(self, out: Tensor) -> Tensor:
        """(b, o, H', W') in the form of the call: without b if the picture had none."""
        return out if self.batched else out[0]

    def nothing(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The result for no picture or no channel: empty, and every gradient is zero."""
        out = x.reshape(-1) * weight.reshape(-1)[:0]
        out = out if bias is None else out + bias[:0]
        return self.result(out.view(len(x), weight.shape[0] if x.shape[1] else 0, *self.size))


def normalize_conv_args(who: str, x: Tensor, weight: Tensor, bias, stride, padding, dilation, groups):
    """The arguments of a convolution in one form: (x (b, c, H, W), ConvCall). Uneven padding is already in x.

    Raises Mismatch where torch raises RuntimeError, and TypeError where torch raises TypeError.
    """
    _shapes(who, x, weight, bias, groups)
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    before, after = margins(weight, stride, padding, dilation)
    batched = x.dim() == 4
    x = x if batched else x[None]
    size = output_size(x, weight, stride, padding, dilation)
    if x.numel() == 0 and len(x) and x.shape[1]:
        raise Mismatch(f"{who}: an image of {_by(x.shape[-2:])} has no pixels; leave it out of the batch")
    if before != after:
        x, before = F.pad(x, (before[1], after[1], before[0], after[0])), (0, 0)
    return x, ConvCall(stride, before, dilation, groups, size, batched)


def output_size(x: Tensor, weight: Tensor, stride=1, padding=0, dilation=1) -> Pair:
    """(H', W'): the number of windows. Raises Mismatch if there is none."""
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    numbers = zip(
        x.shape[-2:], weight.shape[-2:], *margins(weight, stride, padding, dilation), stride, dilation,
        strict=True,
    )  # fmt: skip
    high, wide = ((n + p + q - d * (k - 1) - 1) // s + 1 for n, k, p, q, s, d in numbers)
    if high < 1 or wide < 1:
        raise Mismatch(
            f"conv2d: a kernel of {_by(weight.shape[-2:])} does not fit an image of {_by(x.shape[-2:])} "
            f"with padding {padding}: pad the image, or leave it out"
        )
    return high, wide


def margins(weight: Tensor, stride, padding, dilation) -> tuple[Pair, Pair]:
    """Rows and columns of zeros: (above, left) and (below, right) of the picture."""
    if not isinstance(padding, str):
        return (both := pair(padding, "padding", 0)), both
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        raise Mismatch(f"conv2d: padding {padding!r}: expected a number, two numbers, 'same' or 'valid'")
    if pair(stride, "stride", 1) != (1, 1):
        raise Mismatch(f"conv2d: padding 'same' is not defined for stride {stride}: give it as a number")
    kernel = zip(weight.shape[-2:], pair(dilation, "dilation", 1), strict=True)
    high, wide = (d * (k - 1) for k, d in kernel)
    return (high // 2, wide // 2), (high - high // 2, wide - wide // 2)


def pair(number, name: str = "number", least: int = 0) -> Pair:
    """One number for both directions, or one or two in a tuple or list. Mismatch if below `least`."""
    given = tuple(number) if isinstance(number, (tuple, list)) else (number,)
    if any(isinstance(n, bool) for n in given):
        raise TypeError(f"conv2d: {name} must be integers, got {number!r}")
    try:
        given = tuple(n if isinstance(n, (int, torch.SymInt)) else operator.index(n) for n in given)
    except TypeError as error:
        raise TypeError(f"conv2d: {name} must be integers, got {number!r}") from error
    if len(given) not in (1, 2) or min(given) < least:
        raise Mismatch(f"conv2d: {name} must be one or two numbers of at least {least}, got {number!r}")
    return given if len(given) == 2 else given * 2


def _shapes(who: str, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    same_dtype(who, x=x, weight=weight, bias=bias)
    same_device(who, x=x, weight=weight, bias=bias)
    if x.dim() not in (3, 4) or weight.dim() != 4:
        raise Mismatch(
            f"{who}: expected an image (b, c, H, W) or (c, H, W) and a weight (o, c / groups, kh, kw), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    out, channels = weight.shape[0], weight.shape[1]
    if groups < 1 or out < groups or out % groups or 0 in weight.shape[2:]:
        raise Mismatch(
            f"{who}: weight {tuple(weight.shape)} cannot be split into {groups} group(s) of output channels: "
            "its first size must be a multiple of the groups, and no side of the kernel may be 0"
        )
    if x.shape[-3] != channels * groups:
        raise Mismatch(
            f"{who}: weight {tuple(weight.shape)} with {groups} group(s) expects {channels * groups} channels"
            f", got an image {tuple(x.shape)}"
        )
    if bias is not None and tuple(bias.shape) != (out,):
        raise Mismatch(f"{who}: the bias must be ({out},) for this weight, got {tuple(bias.shape)}")


def _by(numbers) -> str:
    return "x".join(map(str, numbers))
