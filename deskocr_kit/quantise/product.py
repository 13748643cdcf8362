"""x @ w.T for a quantised w: the implementations, and the choice for a device.

All: x (…, in), packed (out, in), bias (out) or None -> (…, out) in x's dtype.

`(x @ q.T) * scale` would need no scaled copy of w, but overflows in fp16: 1280 products of 127 and 5 sum to
812800, and the fp16 maximum is 65504. So either one matrix at a time is unpacked, or a kernel accumulates in
a wider dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..operators.substitutes.npu import operator
from ..operators.substitutes.self_check import NeedsTorchNpu, self_checked
from .pack import Packed

FEW = (
    8  # rows up to which torch's int8 kernel was faster on a CPU than unpacking (fp32 and bf16, 3840 x 1280)
)
BLOCK = 32  # columns that it reads at once in bf16; with rows of 190 it read past the end and crashed


def unpacked(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """The reference: w is unpacked to x's dtype for the product."""
    return F.linear(x, packed.unpack(x.dtype), bias)


def int8_kernel(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """torch's W8A16 product on the CPU, which reads int8 from memory. Only if `int8_kernel_fits`."""
    y = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), packed.values, packed.scales[:, 0].to(x.dtype))
    return (y if bias is None else y + bias).view(*x.shape[:-1], -1)


def int8_kernel_fits(x: Tensor, packed: Packed) -> bool:
    rows = x.numel() // max(1, x.shape[-1])
    return (
        x.device.type == "cpu"
        and packed.bits == 8
        and not packed.group
        and 0 < rows <= FEW
        and packed.columns % BLOCK == 0
        and x.dtype in (torch.float32, torch.bfloat16)  # fp16: not faster than unpacking
        and hasattr(torch, "_weight_int8pack_mm")
    )


def npu_int8(x: Tensor, values: Tensor, scales: Tensor, group: int, bias: Tensor | None = None) -> Tensor:
    """npu_weight_quant_batchmatmul for fp16 and bf16.

    It takes weight (in, out) int8, and scales (out), or (groups, out) with the group size, in x's dtype.
    4 bits are not supported: the operator expects them packed by npu_convert_weight_to_int4pack, in an order
    that could not be checked without a device.
    """
    scales = scales.to(x.dtype).transpose(0, 1).contiguous() if group else scales[:, 0].to(x.dtype)
    y = operator("npu_weight_quant_batchmatmul")(
        x.reshape(-1, x.shape[-1]), values.transpose(0, 1), scales, bias=bias, antiquant_group_size=group
    )
    return y.view(*x.shape[:-1], -1)


def plain_int8(x: Tensor, values: Tensor, scales: Tensor, group: int, bias: Tensor | None = None) -> Tensor:
    """The reference of npu_int8."""
    return unpacked(x, Packed(values, scales, values.shape[1], 8, group), bias)


npu_int8_checked = self_checked(npu_int8, plain_int8, "npu_weight_quant_batchmatmul")


def product(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """The fastest of the implementations that x's device and dtype support."""
    if int8_kernel_fits(x, packed):
        return int8_kernel(x, packed, bias)
    if x.device.type == "npu" and packed.bits == 8 and x.dtype in (torch.float16, torch.bfloat16):
        try:
            return npu_int8_checked(x, packed.values, packed.scales, packed.group, bias)
        except NeedsTorchNpu:  # the simulated NPU
            pass
    return unpacked(x, packed, bias)
