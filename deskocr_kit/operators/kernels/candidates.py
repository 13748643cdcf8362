"""The implementations named `triton`: kernels behind the signatures of the slots.

Each takes every call that its reference takes. A call that its kernel does not compute goes to the reference,
and `supports` says so: other dtypes than fp32, fp16 and bf16, tensors of several dtypes, empty tensors,
gradients, and what the docstring names. conv2d raises NotImplementedError for dilation and groups instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model import slots
from model.decode_layer import Experts
from model.fast.moe import check_routing
from model.fast.position_tables import cached_relative_table
from model.fast.rel_pos_attention import bias_parts
from model.slots import Operator

from ..substitutes import place_images as places
from ..substitutes.conv_call import normalize_conv_args
from . import attention as attention_kernel
from . import choose as choose_kernels
from . import conv2d as conv2d_kernel
from . import (
    decode_attention,
    decode_layer,
    elementwise,
    grouped,
    map_attention,
    norms,
    router,
    rows,
    window_attention,
)
from . import experts as few_experts
from .launch import without_numbers

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
FEW = 16  # tokens up to which every pair reads its own expert; above, the pairs are grouped by expert
WIDTH = 32_768  # numbers of a row that one program can hold


def computes(*tensors: Tensor | None) -> bool:
    """Whether a kernel takes these tensors: one dtype of FLOATS, not empty, no gradient, no autocast."""
    given = [t for t in tensors if t is not None]
    learning = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    return (
        not learning
        and (given[0].is_meta or not torch.is_autocast_enabled(given[0].device.type))
        and given[0].dtype in FLOATS
        and all(t.dtype == given[0].dtype and t.device == given[0].device and t.numel() for t in given)
    )


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    """An implicit matrix product: no window is written out. See kernels/conv2d.py.

    Raises:
        NotImplementedError: dilation or groups other than 1.
    """
    x, call = normalize_conv_args("conv2d (triton)", x, weight, bias, stride, padding, dilation, groups)
    if call.dilation != (1, 1) or call.groups != 1:
        raise NotImplementedError(
            f"conv2d (triton): dilation {dilation} and groups {groups}; the kernel has 1 and 1: use im2row"
        )
    if not computes(x, weight, bias):
        return call.result(slots.conv2d(x, weight, bias, call.stride, call.padding))
    return call.result(conv2d_kernel.conv2d(x, weight, bias, call.stride, call.padding))


def conv2d_supports(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> bool:
    return computes(x, weight, bias)


def place_images(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """One copy of rows. The row numbers come from a mask on the host, or from a running sum on the device."""
    mask = places.check("triton", embeds, mask, source, allow_extra, count=places.countable(mask))
    if not computes(embeds) or not computes(source) or not places.countable(mask):
        return places.cumsum_where(embeds, mask, source, allow_extra)
    flat = mask.reshape(-1)
    chosen = torch.where(flat, flat.to(torch.int32).cumsum(0, dtype=torch.int32) - 1, -1).to(torch.int32)
    base = embeds.reshape(-1, embeds.shape[-1]).contiguous()
    return rows.place_rows(base, source.contiguous(), chosen.to(embeds.device)).view(embeds.shape)


def place_images_supports(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> bool:
    return computes(embeds) and computes(source) and places.countable(mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """One launch for all rows."""
    if not rms_norm_supports(x, weight, eps):
        return slots.rms_norm(x, weight, eps)
    return norms.rms_norm(x, weight, eps)[1]


def rms_norm_supports(x: Tensor, weight: Tensor, eps: float) -> bool:
    return computes(x, weight) and x.dim() > 0 and weight.shape == x.shape[-1:] and x.shape[-1] <= WIDTH


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Sum and norm in one launch. The sum is rounded before the norm, as in the reference."""
    if not add_rms_norm_supports(x, other, weight, eps):
        return slots.add_rms_norm(x, other, weight, eps)
    return norms.rms_norm(x, weight, eps, other)


def add_rms_norm_supports(x: Tensor, other: Tensor, weight: Tensor, eps: float) -> bool:
    return rms_norm_supports(x, weight, eps) and computes(x, other) and other.shape == x.shape


def add_layer_norm(
    x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Sum and norm in one launch. The sum is rounded before the norm, as in the reference."""
    if not add_layer_norm_supports(x, other, weight, bias, eps):
        return slots.add_layer_norm(x, other, weight, bias, eps)
    return norms.layer_norm(x, weight, bias, eps, other)


def add_layer_norm_supports(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, eps: float) -> bool:
    same = bias is not None and bias.shape == weight.shape and computes(weight, bias)
    return same and add_rms_norm_supports(x, other, weight, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The rotation in one launch; x may be a view of q and k together."""
    if not rotary_supports(x, cos, sin):
        return slots.rotary(x, cos, sin)
    return elementwise.rotary(x, cos, sin)


def rotary_supports(x: Tensor, cos: Tensor, sin: Tensor) -> bool:
    if not (computes(x, cos, sin) and x.dim() == 4 and x.shape[-1] % 2 == 0):
        return False
    b, _, n, k = x.shape
    return cos.shape == sin.shape and tuple(cos.shape) in {(1, 1, n, k), (b, 1, n, k)}


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """One query per head against the keys in use, with or without a mask; or many queries without a mask."""
    if not attention_supports(q, k, v, mask, causal):
        return slots.attention(q, k, v, mask, causal)
    if q.shape[2] == 1:
        return decode_attention.decode_attention(q, k, v, mask)
    return attention_kernel.attention(q, k, v, causal)


def attention_supports(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> bool:
    if not computes(q, k, v) or q.dim() != 4 or k.dim() != 4 or k.shape != v.shape:
        return False
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        return False
    if q.shape[2] > 1:
        return mask is None and attention_kernel.fits(q)
    if causal:
        return False
    if mask is None:
        return True
    wanted = (*q.shape[:2], 1, k.shape[2])
    fits = mask.dim() <= 4 and all(
        m in (1, n) for m, n in zip(reversed(mask.shape), reversed(wanted), strict=False)
    )
    return mask.dtype == torch.bool and fits


def rel_pos_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """SAM's attention in one launch after two products for the bias; no (n, n) tensor."""
    if not rel_pos_supports(q, k, v, rel_h, rel_w):
        return slots.rel_pos_attention(q, k, v, rel_h, rel_w)
    return map_attention.map_attention(q, k, v, *bias_parts(q, rel_h, rel_w))


def rel_pos_supports(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> bool:
    side, width = rel_h.shape[0], q.shape[-1]
    return (
        computes(q, k, v, rel_h, rel_w)
        and q.dim() == 4
        and q.shape == k.shape == v.shape
        and q.shape[2] == side * side
        and rel_h.shape == rel_w.shape == (side, side, width)
    )


def sam_attention(qkv: Tensor, bias: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int, window: int) -> Tensor:
    """One launch: windows, their padding, and relative positions are read by index."""
    if not sam_attention_supports(qkv, bias, rel_h, rel_w, heads, window):
        return slots.sam_attention(qkv, bias, rel_h, rel_w, heads, window)
    side = window or qkv.shape[1]
    if len(rel_h) != 2 * side - 1:  # of another size: interpolated, once per size
        rel_h, rel_w = cached_relative_table(rel_h, side), cached_relative_table(rel_w, side)
    return window_attention.window_attention(qkv, bias, rel_h, rel_w, heads, window)


def sam_attention_supports(
    qkv: Tensor, bias: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int, window: int
) -> bool:
    return (
        computes(qkv, bias, rel_h, rel_w)
        and qkv.dim() == 4
        and qkv.shape[1] == qkv.shape[2]
        and qkv.shape[3] % (3 * heads) == 0
        and bias.shape == qkv.shape[3:]
        and rel_h.shape == rel_w.shape == (len(rel_h), qkv.shape[3] // (3 * heads))
        and window >= 0
    )


def mixture(x: Tensor, experts: Experts) -> Tensor:
    """One launch for the router, four for many tokens through the chosen experts, three for the shared ones.

    Few tokens take three launches.
    """
    if not mixture_supports(x, experts):
        return slots.mixture(x, experts)
    e = experts
    x, ids, weights = router.route(x, None, 0.0, e.gate, e.top, e.renormalise, e.scale)
    if len(x) <= FEW:
        shared = (e.shared_gate_up, e.shared_down)
        return few_experts.few_tokens(x, e.gate_up, e.down, ids, weights, shared)
    added = F.linear(elementwise.swiglu(F.linear(x, e.shared_gate_up)), e.shared_down)
    return grouped.many_tokens(x, e.gate_up, e.down, ids, weights, added)


def mixture_supports(x: Tensor, experts: Experts) -> bool:
    e = experts
    weights = (e.gate, e.gate_up, e.down, e.shared_gate_up, e.shared_down)
    return computes(x, *weights) and x.dim() == 2 and e.top <= 16 and all(w.is_contiguous() for w in weights)


def moe(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Few tokens read their experts in place; many are grouped by expert. Never waits for the device.

    An id that names no expert is not checked on a device, because that would be a wait.
    """
    if not moe_supports(x, gate_up, down, ids, weights):
        return slots.moe(x, gate_up, down, ids, weights)
    if ids.device.type == "cpu" and not without_numbers(ids):
        low, high = ids.aminmax()
        if low < 0 or high >= len(gate_up):
            raise IndexError(
                f"moe (triton): an id is not one of the {len(gate_up)} experts, 0 to {len(gate_up) - 1}"
            )
    run = few_experts.few_tokens if len(x) <= FEW else grouped.many_tokens
    return run(x, gate_up.contiguous(), down.contiguous(), ids.contiguous(), weights.contiguous())


def moe_supports(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> bool:
    check_routing(x, ids, weights)
    return (
        computes(x, gate_up, down)
        and bool(ids.numel())
        and weights.dtype in FLOATS
        and not (torch.is_grad_enabled() and weights.requires_grad)
        and gate_up.shape[1:] == (2 * down.shape[2], down.shape[1])
        and x.shape[1] == down.shape[1]
    )


def swiglu(x: Tensor) -> Tensor:
    """One launch."""
    return elementwise.swiglu(x) if swiglu_supports(x) else slots.swiglu(x)


def swiglu_supports(x: Tensor) -> bool:
    return computes(x) and x.dim() > 0 and x.shape[-1] % 2 == 0


def gelu(x: Tensor) -> Tensor:
    """The exact GELU in one launch, computed in fp32."""
    return elementwise.gelu(x) if computes(x) else slots.gelu(x)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x) in one launch, computed in fp32."""
    return elementwise.gelu(x, quick=True) if computes(x) else slots.quick_gelu(x)


def _triton(function: Callable, supports: Callable[..., bool]) -> Operator:
    return Operator(function, supports, name="triton")


CANDIDATES: dict[str, dict[str, Operator]] = {
    "conv2d": {"triton": _triton(conv2d, conv2d_supports)},
    "place_images": {"triton": _triton(place_images, place_images_supports)},
    "rel_pos_attention": {"triton": _triton(rel_pos_attention, rel_pos_supports)},
    "sam_attention": {"triton": _triton(sam_attention, sam_attention_supports)},
    "attention": {"triton": _triton(attention, attention_supports)},
    "moe": {"triton": _triton(moe, moe_supports)},
    "mixture": {"triton": _triton(mixture, mixture_supports)},
    "rms_norm": {"triton": _triton(rms_norm, rms_norm_supports)},
    "add_rms_norm": {"triton": _triton(add_rms_norm, add_rms_norm_supports)},
    "add_layer_norm": {"triton": _triton(add_layer_norm, add_layer_norm_supports)},
    "rotary": {"triton": _triton(rotary, rotary_supports)},
    "swiglu": {"triton": _triton(swiglu, swiglu_supports)},
    "gelu": {"triton": _triton(gelu, computes)},
    "quick_gelu": {"triton": _triton(quick_gelu, computes)},
    "decode_layer": {"triton": Operator(decode_layer.decode_layer, name="triton")},
    "choose": {"triton": Operator(choose_kernels.choose, name="triton")},
}
