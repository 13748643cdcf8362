"""Convolution as a matrix product, four ways.

A convolution multiplies every window of the picture with the same matrix. The four functions differ in how
they arrange the windows in memory before this one product:

    unfold_einsum  columns (c*kh*kw, windows) by F.unfold, then einsum: the original project's method,
                   see docs/background.md
    patchify       kernel == stride: the windows do not overlap, so a reshape is enough
    pointwise      1x1: every pixel is a window already, the layer is a linear layer over the channels
    im2row         rows (windows, kh*kw*c), channels innermost: whole pixels are copied, not single numbers

The order matters: on the CPU a product in fp16 with the windows on the right side (`weight @ columns`) is
tens of times slower than one with the windows as rows (`rows @ weight.T`); `deskocr prove` measures by how
much on this machine. patchify and pointwise call im2row for arguments that they do not support, so each of
them works for every call.

Shapes: x (b, c, H, W) or (c, H, W), weight (o, c / groups, kh, kw), bias (o) or None -> (b, o, H', W').
Numbers may be int or (vertical, horizontal), the padding also "same" or "valid"; conv_call.py defines which
arguments are refused, and with which error. The zeros of the padding are multiplied like all other numbers:
an infinite weight gives NaN at the border, as it does where torch's own convolution is a matrix product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.slots import operator

from .conv_call import margins, normalize_conv_args, pair
from .mismatch import Mismatch


def unfold_einsum(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Columns by F.unfold, one einsum, a view.

    The signature is F.unfold(x, kernel_size, dilation, padding, stride). `F.unfold(x, k, padding, stride)`
    passes the padding as dilation: it raises for padding 0, is silently right for 3x3 with padding 1 and
    stride 1, and gives the wrong number of windows for stride 2. Therefore keywords are used.
    """
    x, call = normalize_conv_args(
        "conv2d (unfold_einsum)", x, weight, bias, stride, padding, dilation, groups
    )
    if x.numel() == 0:
        return call.nothing(x, weight, bias)
    if not (x.is_floating_point() or x.is_complex()):
        raise Mismatch(
            f"conv2d (unfold_einsum): F.unfold does not support {x.dtype}; use im2row, or cast to float"
        )
    columns = F.unfold(
        x, kernel_size=weight.shape[-2:], dilation=call.dilation, padding=call.padding, stride=call.stride
    )
    if groups == 1:
        out = torch.einsum("ok,bkl->bol", weight.flatten(1), columns)
    else:
        grouped = weight.flatten(1).unflatten(0, (groups, -1))
        out = torch.einsum("gok,bgkl->bgol", grouped, columns.unflatten(1, (groups, -1))).flatten(1, 2)
    if bias is not None:
        out = out + bias.to(out.dtype)[:, None]
    return call.result(out.view(len(x), weight.shape[0], *call.size))


def no_overlap(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Whether patchify computes this call itself; otherwise im2row does, and it is not timed as patchify."""
    plain = not _padded(weight, stride, padding, dilation) and pair(dilation) == (1, 1) and groups == 1
    return plain and tuple(weight.shape[-2:]) == pair(stride)


def single_pixels(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    """Whether pointwise computes this call itself."""
    return weight.shape[-2:] == (1, 1) and not _padded(weight, stride, padding, dilation) and groups == 1


@operator(supports=no_overlap)
def patchify(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """For kernel == stride, no padding: cut the picture into patches by a reshape, then one linear layer."""
    if not no_overlap(x, weight, bias, stride, padding, dilation, groups):
        return im2row(x, weight, bias, stride, padding, dilation, groups)
    x, call = normalize_conv_args("conv2d (patchify)", x, weight, bias, stride, padding, dilation, groups)
    if x.numel() == 0:
        return call.nothing(x, weight, bias)
    b, c, (high, wide), (kh, kw) = x.shape[0], x.shape[1], call.size, weight.shape[-2:]
    whole = x[:, :, : high * kh, : wide * kw]  # a convolution ignores pixels that do not fill a window
    rows = whole.reshape(b, c, high, kh, wide, kw).permute(0, 2, 4, 1, 3, 5).reshape(-1, c * kh * kw)
    return call.result(_from_rows(F.linear(rows, weight.flatten(1), bias), b, high, wide))


@operator(supports=single_pixels)
def pointwise(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """For kernel 1x1: a linear layer over each pixel's channels. No copy if the channels are innermost."""
    if not single_pixels(x, weight, bias, stride, padding, dilation, groups):
        return im2row(x, weight, bias, stride, padding, dilation, groups)
    x, call = normalize_conv_args("conv2d (pointwise)", x, weight, bias, stride, padding, dilation, groups)
    if x.numel() == 0:
        return call.nothing(x, weight, bias)
    sh, sw = call.stride
    if (sh, sw) != (1, 1):
        x = x[:, :, ::sh, ::sw]
    b, c, high, wide = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, c)
    if rows.is_cpu and rows.dtype == torch.float16:
        # For one contiguous picture these rows are a transposed view, in memory still columns: the CPU's fp16
        # product on them is a hundred times slower than the copy.
        rows = rows.contiguous()
    return call.result(_from_rows(F.linear(rows, weight.flatten(1), bias), b, high, wide))


def im2row(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """Rows of whole pixels, one linear layer. Peak memory: kh * kw times the picture, as with any unfold."""
    x, call = normalize_conv_args("conv2d (im2row)", x, weight, bias, stride, padding, dilation, groups)
    if x.numel() == 0:
        return call.nothing(x, weight, bias)
    (high, wide), (kh, kw), (ph, pw) = call.size, weight.shape[-2:], call.padding
    (sh, sw), (dh, dw) = call.stride, call.dilation
    pixels = x.permute(0, 2, 3, 1)
    if ph or pw:
        pixels = F.pad(pixels, (0, 0, pw, pw, ph, ph))
    pixels = pixels.contiguous()  # (b, H, W, c)
    b, _, _, c = pixels.shape
    row, column, pixel = pixels.stride()[:3]
    windows = pixels.as_strided(
        (b, high, wide, kh, kw, c), (row, sh * column, sw * pixel, dh * column, dw * pixel, 1)
    )
    if groups > 1:
        grouped = weight.unflatten(0, (groups, -1))  # g o c kh kw
        rows = torch.einsum("bhwijgc,gocij->bhwgo", windows.unflatten(-1, (groups, -1)), grouped).flatten(-2)
        rows = rows if bias is None else rows + bias.to(rows.dtype)
    else:
        flat = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
        rows = F.linear(windows.reshape(-1, kh * kw * c), flat, bias)
    return call.result(_from_rows(rows, b, high, wide))


def _padded(weight, stride, padding, dilation) -> bool:
    return any(map(any, margins(weight, stride, padding, dilation)))


def _from_rows(rows: Tensor, b: int, high: int, wide: int) -> Tensor:
    """(b * H' * W', o) -> (b, o, H', W'), channels innermost in memory as with torch.channels_last."""
    return rows.view(b, high, wide, rows.shape[-1]).permute(0, 3, 1, 2)
