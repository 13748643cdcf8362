"""Fused operators of torch_npu behind the signatures of the slots.

Every call here fits the published schemas (tests/operators/test_npu_substitutes.py binds them) and is checked
on its first use (self_check.py). Source: the documentation of op-plugin; the comments state the problems that
its users reported. Without torch_npu every function here raises NeedsTorchNpu.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from model import slots
from model.fast.moe import few_pairs, gathered, one_token, sort_by_expert, unsort
from model.fast.rel_pos_attention import bias_parts, fold

from .attention import drop_mask
from .self_check import NeedsTorchNpu, SelfChecked, self_checked

EVERYTHING = 2147483647  # next_tokens of npu_prompt_flash_attention is 0 by default: that means causal


def operator(name: str) -> Callable:
    """torch_npu's operator of that name. Raises NeedsTorchNpu if it is not available."""
    try:
        import torch_npu
    except Exception as error:  # missing, or installed without CANN: any class of error, see device.explain
        raise NeedsTorchNpu(
            f"{name} is an operator of torch_npu, which cannot be imported here ({type(error).__name__}); "
            "`deskocr doctor` shows what is missing"
        ) from error
    if not hasattr(torch_npu, name):
        raise NeedsTorchNpu(f"torch_npu {getattr(torch_npu, '__version__', '?')} has no {name}")
    return getattr(torch_npu, name)


def npu_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm in one kernel instead of seven."""
    return operator("npu_rms_norm")(x, weight, eps)[0]


def npu_rotary_mul(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation of x (b, h, n, k) in one kernel; k must be even and below 896."""
    return operator("npu_rotary_mul")(x.contiguous(), cos, sin, "half")


def npu_swiglu(x: Tensor) -> Tensor:
    """silu(first half) * second half: the order in which our gate and up are stacked."""
    return operator("npu_swiglu")(x.contiguous(), dim=-1)


def npu_gelu(x: Tensor) -> Tensor:
    """The exact gelu. `F.gelu` on an NPU uses the tanh formula, whatever its arguments are."""
    return operator("npu_gelu")(x, approximate="none")


def npu_fusion_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Flash attention. Its mask marks keys to *drop*; (b, 1, 1, n) is refused, so it is expanded."""
    drop = drop_mask(q, k, mask, causal)
    if drop is not None and drop.dim() == 4:
        drop = drop.expand(-1, -1, q.shape[-2], -1).contiguous()
    return operator("npu_fusion_attention")(
        q.contiguous(), k.contiguous(), v.contiguous(), q.shape[1], "BNSD",
        atten_mask=drop, scale=q.shape[-1] ** -0.5,
    )[0]  # fmt: skip


def npu_fused_infer_attention_score(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """The decoding kernel, for one query without a mask; everything else goes to npu_fusion_attention.

    This operator silently ignores a (1, 1, 1, keys) mask past 512 keys, so it never gets one. Keys and values
    of a cache are passed as they were allocated, with the length in use: nothing is copied.
    """
    if q.shape[-2] != 1 or mask is not None or (causal and k.shape[-2] > 1):
        return npu_fusion_attention(q, k, v, mask, causal)
    return operator("npu_fused_infer_attention_score")(
        q.contiguous(), allocated(k), allocated(v),
        num_heads=q.shape[1], scale=q.shape[-1] ** -0.5, input_layout="BNSD",
        actual_seq_lengths_kv=[k.shape[2]] * len(k),
    )[0]  # fmt: skip


def allocated(t: Tensor) -> Tensor:
    """t (b, h, n, k), the filled part of a cache (b, h, length, k) -> all of it; else a contiguous copy."""
    b, h, n, d = t.shape
    length = t.stride(1) // d
    whole = (h * length * d if b > 1 else t.stride(0), length * d, d, 1)
    if t.stride() != whole or length < n:
        return t.contiguous()
    room = t.untyped_storage().nbytes() // t.element_size() - t.storage_offset()
    return t.as_strided((b, h, length, d), whole) if b * h * length * d <= room else t.contiguous()


def npu_prompt_flash_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The whole bias as `pse_shift` of npu_prompt_flash_attention (fp16, bf16), as vllm-ascend does."""
    b, h, n, d = q.shape
    rows, columns = bias_parts(q, rel_h, rel_w)
    bias = (rows[..., :, None] + columns[..., None, :]).reshape(b, h, n, n)
    return operator("npu_prompt_flash_attention")(
        q.contiguous(), k.contiguous(), v.contiguous(), pse_shift=bias, num_heads=h, scale_value=d**-0.5,
        next_tokens=EVERYTHING, input_layout="BNSD",
    )  # fmt: skip


def npu_folded_fusion_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The bias as extra columns of queries and keys, so no (n, n) tensor exists. Width: a multiple of 16."""
    d = q.shape[-1]
    wide_q, wide_k = fold(q, k, rel_h, rel_w, multiple=16)
    wide_v = F.pad(v, (0, wide_q.shape[-1] - d))
    out = operator("npu_fusion_attention")(wide_q, wide_k, wide_v, q.shape[1], "BNSD", scale=d**-0.5)[0]
    return out[..., :d]


def npu_grouped_matmul(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Two grouped products for all experts (fp16, bf16), a fused swiglu between them; never waits."""
    order, sizes = sort_by_expert(ids, gate_up.shape[0])
    ends = sizes.cumsum(0, dtype=torch.int32).long()  # summed as int32: an int64 cumsum runs on the AI CPU

    def product(rows: Tensor, weight: Tensor) -> Tensor:
        return operator("npu_grouped_matmul")(
            [rows], [weight.transpose(1, 2)], group_list=ends, split_item=3, group_type=0, group_list_type=0
        )[0]

    hidden = npu_swiglu(product(x.index_select(0, order // ids.shape[1]), gate_up))
    return unsort(product(hidden, down), order, weights).to(x.dtype)


@slots.operator(
    supports=few_pairs, prepare=lambda mlp, batch: one_token(mlp, batch, CANDIDATES["swiglu"]["npu_swiglu"])
)
def npu_gathered_swiglu(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """`gathered` with the fused swiglu between its two products: the fewest launches for one token."""
    operator("npu_swiglu")  # raises where it is missing, also for many tokens
    return gathered(x, gate_up, down, ids, weights, npu_swiglu)


#: {slot: functions}: plans and reports name an implementation by its function.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "rms_norm": (npu_rms_norm,),
    "rotary": (npu_rotary_mul,),
    "swiglu": (npu_swiglu,),
    "gelu": (npu_gelu,),
    "attention": (npu_fusion_attention, npu_fused_infer_attention_score),
    "rel_pos_attention": (npu_prompt_flash_attention, npu_folded_fusion_attention),
    "moe": (npu_grouped_matmul, npu_gathered_swiglu),
}
CANDIDATES: dict[str, dict[str, SelfChecked]] = {
    slot: {f.__name__: self_checked(f, getattr(slots, slot), f.__name__) for f in functions}
    for slot, functions in _FUNCTIONS.items()
}
