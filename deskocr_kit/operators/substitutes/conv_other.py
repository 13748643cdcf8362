"""Convolutions in one and three dimensions, and transposed ones, by any 2d convolution.

    in one dimension     a picture of height 1
    in three dimensions  the frames of a window become channels (Qwen2-VL's patches: one window)
    transposed           zeros between the pixels and the kernel flipped; if the windows do not overlap
                         (SAM's upscaling) every pixel gives its own square: a 1x1 convolution

In all of them `function` is a candidate of the slot conv2d, called as function(x, weight, bias, stride,
padding[, dilation, groups]). x may have a batch dimension or not. Numbers have the form that the layers of
torch.nn store: one per dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from .mismatch import Mismatch


def conv2d(function: Callable, x, weight, bias, stride, padding, dilation=(1, 1), groups=1) -> Tensor:
    """Call `function`, with dilation and groups only if they are not 1: not every function takes them."""
    special = groups != 1 or tuple(dilation) != (1, 1)
    return function(
        x, weight, bias, stride, padding, **({"dilation": dilation, "groups": groups} if special else {})
    )


def conv1d(function: Callable, x, weight, bias, stride, padding, dilation=(1,), groups=1) -> Tensor:
    """x (b, c, n), weight (o, c / groups, k) -> (b, o, n')."""
    x, weight = x[..., None, :], weight[..., None, :]
    out = conv2d(function, x, weight, bias, (1, *stride), (0, *padding), (1, *dilation), groups)
    return out[..., 0, :]


def conv3d(function: Callable, x, weight, bias, stride, padding, dilation=(1, 1, 1), groups=1) -> Tensor:
    """x (b, c, T, H, W), weight (o, c / groups, kt, kh, kw) -> (b, o, T', H', W')."""
    if x.dim() == 4:
        return conv3d(function, x[None], weight, bias, stride, padding, dilation, groups)[0]
    (step, *steps), (margin, *margins), (gap, *gaps) = stride, padding, dilation
    moments = weight.shape[2]
    if margin:
        x = F.pad(x, (0, 0, 0, 0, margin, margin))
    span = gap * (moments - 1) + 1
    if x.shape[2] < span:
        raise Mismatch(f"conv3d: a window of {span} frames does not fit {x.shape[2]}; pad, or leave it out")
    windows = x.unfold(2, span, step)[..., ::gap]  # b c T' H W kt
    b, c, t, high, wide, _ = windows.shape
    pictures = windows.permute(0, 2, 1, 5, 3, 4).reshape(b * t, c * moments, high, wide)
    out = conv2d(function, pictures, weight.flatten(1, 2), bias, steps, margins, gaps, groups)
    return out.unflatten(0, (b, t)).transpose(1, 2)


def conv_transpose2d(
    function: Callable, x, weight, bias, stride, padding, output_padding, groups=1, dilation=(1, 1)
) -> Tensor:
    """x (b, c, H, W), weight (c, o / groups, kh, kw) -> (b, o, H', W')."""
    if x.dim() == 3:
        more = stride, padding, output_padding, groups, dilation
        return conv_transpose2d(function, x[None], weight, bias, *more)[0]
    (b, c, high, wide), (kh, kw), (sh, sw) = x.shape, weight.shape[-2:], stride
    apart = (kh, kw) == (sh, sw) and groups == 1
    if apart and not any((*padding, *output_padding)) and tuple(dilation) == (1, 1):
        return _squares(function, x, weight, bias)
    spread = x.new_zeros(b, c, (high - 1) * sh + 1, (wide - 1) * sw + 1)
    spread[..., ::sh, ::sw] = x
    top, left = (d * (k - 1) - p for d, k, p in zip(dilation, (kh, kw), padding, strict=True))
    spread = F.pad(spread, (left, left + output_padding[1], top, top + output_padding[0]))
    turned = weight.flip(-1, -2).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)  # o, c / groups
    return conv2d(function, spread, turned, bias, (1, 1), (0, 0), dilation, groups)


def conv_transpose1d(
    function: Callable, x, weight, bias, stride, padding, output_padding, groups=1, dilation=(1,)
) -> Tensor:
    """x (b, c, n), weight (c, o / groups, k) -> (b, o, n')."""
    numbers = (1, *stride), (0, *padding), (0, *output_padding), groups, (1, *dilation)
    return conv_transpose2d(function, x[..., None, :], weight[..., None, :], bias, *numbers)[..., 0, :]


def _squares(function: Callable, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (b, c, high, wide), (_, out, kh, kw) = x.shape, weight.shape
    flat = weight.permute(1, 2, 3, 0).reshape(out * kh * kw, c, 1, 1)
    wider = None if bias is None else bias[:, None].expand(out, kh * kw).reshape(-1)
    squares = conv2d(function, x, flat, wider, (1, 1), (0, 0)).reshape(b, out, kh, kw, high, wide)
    return squares.permute(0, 1, 4, 2, 5, 3).reshape(b, out, high * kh, wide * kw)
