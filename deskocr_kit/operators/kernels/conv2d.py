"""A convolution as an implicit matrix product: the windows are read where they lie and never written out.

Rows of the product are output pixels, columns are output channels, the depth is c * kh * kw. The result lies
channels-last in memory, because the compiler for NPUs refuses some stores with a stride between neighbours.
"""

from __future__ import annotations

from torch import Tensor

from .language import tl, triton
from .launch import blocks, launch, power_of_two, widens
from .sizes import PRODUCT


@triton.jit
def conv2d_kernel(
    x,
    weight,
    bias,
    out,
    pixels,
    channels,
    depth,
    height,
    width,
    out_height,
    out_width,
    down,
    across,
    above,
    before,
    sb,
    sc,
    sh,
    sw,
    KH: tl.constexpr,
    KW: tl.constexpr,
    BIAS: tl.constexpr,
    WIDE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    row = tl.program_id(0) * BM + tl.arange(0, BM)  # an output pixel
    column = tl.program_id(1) * BN + tl.arange(0, BN)  # an output channel
    image = row // (out_height * out_width)
    top = row // out_width % out_height * down - above
    left = row % out_width * across - before
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        y = top[:, None] + (k // KW % KH)[None, :]
        z = left[:, None] + (k % KW)[None, :]
        inside = (row < pixels)[:, None] & (k < depth)[None, :]
        inside = inside & (y >= 0) & (y < height) & (z >= 0) & (z < width)
        place = image[:, None] * sb + (k // (KH * KW))[None, :] * sc + y * sh + z * sw
        # An NPU applies this mask after the load (kernel_evidence/before_mask.py): stay in x.
        a = tl.load(x + tl.where(inside, place, 0), mask=inside, other=0.0)
        known = (k < depth)[:, None] & (column < channels)[None, :]
        b = tl.load(weight + column[None, :] * depth + k[:, None], mask=known, other=0.0)
        if WIDE:
            a, b = a.to(tl.float32), b.to(tl.float32)
        total = tl.dot(a, b, total, input_precision="ieee")
    if BIAS:
        total += tl.load(bias + column, mask=column < channels, other=0.0).to(tl.float32)[None, :]
    here = (row < pixels)[:, None] & (column < channels)[None, :]
    tl.store(out + row[:, None] * channels + column[None, :], total.to(out.dtype.element_ty), mask=here)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """x (b, c, H, W) with any strides, weight (o, c, kh, kw) -> (b, o, H', W'), channels-last in memory.

    stride and padding: (vertical, horizontal).
    """
    b, c, height, width = x.shape
    o, _, kh, kw = weight.shape
    out_height = (height + 2 * padding[0] - kh) // stride[0] + 1
    out_width = (width + 2 * padding[1] - kw) // stride[1] + 1
    out = x.new_empty(b, out_height, out_width, o)
    pixels, (bm, bn, bk) = b * out_height * out_width, PRODUCT
    bm, bn = min(bm, max(16, power_of_two(pixels))), min(bn, max(16, power_of_two(o)))
    launch(
        conv2d_kernel,
        (blocks(pixels, bm), blocks(o, bn)),
        x,
        weight.contiguous(),
        x if bias is None else bias.contiguous(),
        out,
        pixels,
        o,
        c * kh * kw,
        height,
        width,
        out_height,
        out_width,
        *stride,
        *padding,
        *x.stride(),
        KH=kh,
        KW=kw,
        BIAS=bias is not None,
        WIDE=widens(x),
        BM=bm,
        BN=bn,
        BK=bk,
    )
    return out.permute(0, 3, 1, 2)
