"""Fused operators of torch_npu in plain PyTorch, with their pitfalls.

Each follows the documentation of op-plugin: True in a mask drops a key, `next_tokens` of the prompt attention
is 0 by default and therefore causal, npu_fused_infer_attention_score ignores a mask beyond 512 keys. Only the
calls of ports are supported: other layouts, modes and arguments raise NotImplementedError. Calls that the
operators reject raise RuntimeError with the error code of the device.

Used by the stand-in for the package torch_npu (stub.py) and by the tests, which also bind every call to the
published schemas.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

HALF = (torch.float16, torch.bfloat16)


def _supported(name: str, condition: bool, what: str) -> None:
    if not condition:
        raise NotImplementedError(f"{name} of the simulated NPU supports only {what}")


def npu_rms_norm(x, gamma, epsilon=1e-6):
    """(x / rms(x) * gamma, 1 / rms(x)) over the last dimension, computed in fp32 and rounded once."""
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + epsilon)
    return (x.float() * scale * gamma.float()).to(x.dtype), scale


def npu_rotary_mul(x, r1, r2, rotary_mode="half"):
    """x * cos + rotate(x) * sin for (b, heads, tokens, even width), rotating by halves."""
    _supported("npu_rotary_mul", rotary_mode == "half", "rotary_mode='half'")
    left, right = x.chunk(2, -1)
    return x * r1 + torch.cat((-right, left), -1) * r2


def npu_swiglu(x, dim=-1):
    """silu(first half) * second half."""
    gate, up = x.chunk(2, dim)
    return F.silu(gate) * up


def npu_gelu(x, *, approximate="none"):
    """The gelu of torch, in both forms."""
    return F.gelu(x, approximate=approximate)


def npu_fusion_attention(
    query, key, value, head_num, input_layout, pse=None, padding_mask=None, atten_mask=None, scale=1.0,
    keep_prob=1.0, **more,
):  # fmt: skip
    """Attention in the layouts BNSD, BSND, BSH and SBH; `atten_mask` is True where a key is dropped.

    Returns a tuple of seven, as the operator does; only the first is computed.
    """
    name, layouts = "npu_fusion_attention", ("BNSD", "BSND", "BSH", "SBH")
    _supported(name, input_layout in layouts, f"the layouts {', '.join(layouts)}")
    _supported(name, not more and padding_mask is None, "arguments up to keep_prob, without padding_mask")

    def to_heads(x):  # -> (b, heads, tokens, width)
        if input_layout == "SBH":
            x = x.transpose(0, 1)
        if x.dim() == 3:
            x = x.unflatten(-1, (head_num, -1))
        return x if input_layout == "BNSD" else x.transpose(1, 2)

    q, k, v = to_heads(query), to_heads(key), to_heads(value)
    if atten_mask is not None:
        b, n, s, t = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
        if tuple(atten_mask.shape) not in [(b, n, s, t), (b, 1, s, t), (1, 1, s, t), (s, t)]:
            raise RuntimeError(f"atten_mask {tuple(atten_mask.shape)}: error code is 561103")
    keep = None if atten_mask is None else ~atten_mask.bool()
    if pse is not None:
        keep = pse if keep is None else pse.masked_fill(~keep, float("-inf"))
    out = F.scaled_dot_product_attention(q, k, v, keep, dropout_p=1 - keep_prob, scale=scale)
    if input_layout != "BNSD":
        out = out.transpose(1, 2)
    if input_layout in ("BSH", "SBH"):
        out = out.flatten(2)
    out = out.transpose(0, 1) if input_layout == "SBH" else out
    return out, None, None, None, 0, 0, 0


def npu_fused_infer_attention_score(
    q,
    k,
    v,
    *,
    num_heads=1,
    scale=1.0,
    input_layout="BSH",
    atten_mask=None,
    actual_seq_lengths_kv=None,
    **more,
):
    """Attention of the decoding kernel in the layout BNSD -> (result, log-sum-exp that is not computed)."""
    name = "npu_fused_infer_attention_score"
    _supported(name, input_layout == "BNSD" and not more, "the layout BNSD without further arguments")
    if num_heads != q.shape[1]:
        raise RuntimeError(f"num_heads {num_heads} for {q.shape[1]} heads: error code is 561002")
    if actual_seq_lengths_kv is not None:
        lengths = set(actual_seq_lengths_kv)
        _supported(name, len(lengths) == 1, "one length for all samples")
        k, v = k[:, :, : min(lengths)], v[:, :, : min(lengths)]
    keep = None
    if atten_mask is not None:
        keep = ~atten_mask
        keep[..., 512:] = True  # the trap
    return F.scaled_dot_product_attention(q, k, v, keep, scale=scale), torch.zeros(1, device=q.device)


def npu_prompt_flash_attention(
    q, k, v, *, pse_shift=None, num_heads=1, scale_value=1.0, next_tokens=0, input_layout="BSH"
):
    """Attention with a bias `pse_shift` in the layout BNSD. A query sees `next_tokens` keys after its own."""
    _supported("npu_prompt_flash_attention", input_layout == "BNSD", "the layout BNSD")
    wrong = num_heads != q.shape[1] or (pse_shift is not None and pse_shift.dtype != q.dtype)
    if wrong or q.dtype not in HALF:
        raise RuntimeError("call aclnnPromptFlashAttentionV3 failed, error code is 561002")
    queries, keys = q.shape[-2], k.shape[-2]
    bias = torch.zeros(queries, keys, dtype=q.dtype, device=q.device) if pse_shift is None else pse_shift
    if next_tokens < keys:
        ahead = torch.ones(queries, keys, dtype=torch.bool, device=q.device).triu(next_tokens + 1)
        bias = bias.masked_fill(ahead, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, bias, scale=scale_value)


def npu_grouped_matmul(x, weight, *, group_list=None, split_item=0, group_type=None, group_list_type=0):
    """[rows (n, d)] times [weights (groups, d, o)] -> [(n, o)]; group_list: int64, where each group ends."""
    _supported(
        "npu_grouped_matmul",
        len(x) == len(weight) == 1 and split_item in (2, 3) and group_type == 0 and group_list_type == 0,
        "one tensor of rows and one of weights, cut along the rows by the ends in group_list",
    )
    if x[0].dtype not in HALF or group_list.dtype != torch.int64 or group_list[-1] != len(x[0]):
        raise RuntimeError("call aclnnGroupedMatmulV4 failed, error code is 561002")
    ends = [0, *group_list.tolist()]
    parts = [x[0][a:b] @ w for a, b, w in zip(ends[:-1], ends[1:], weight[0], strict=True)]
    return [torch.cat(parts)]


def npu_weight_quant_batchmatmul(
    x, weight, antiquant_scale, antiquant_offset=None, quant_scale=None, quant_offset=None, bias=None,
    antiquant_group_size=0, inner_precise=0,
):  # fmt: skip
    """x (n, k) times int8 weights (k, o) with scales (o,), or (k / group, o) by groups of 32 rows or more."""
    offsets = (antiquant_offset, quant_scale, quant_offset)
    _supported(
        "npu_weight_quant_batchmatmul",
        all(each is None for each in offsets) and inner_precise == 0,
        "symmetric weights and a result that is not quantised",
    )
    k, n = weight.shape
    g, shape = antiquant_group_size, tuple(antiquant_scale.shape)
    wanted = (n,) if g == 0 else (-(-k // g), n)
    right = g == 0 or (g % 32 == 0 and 32 <= g <= k - 1)
    kinds = weight.dtype == torch.int8 and antiquant_scale.dtype == x.dtype and x.dtype != torch.float32
    if shape != wanted or not right or not kinds:
        raise RuntimeError("call aclnnWeightQuantBatchMatmulV2 failed, error code is 161002")
    if g:
        antiquant_scale = antiquant_scale.repeat_interleave(g, 0)[:k]
    y = x.float() @ (weight.float() * antiquant_scale.float())
    return (y if bias is None else y + bias.float()).to(x.dtype)


OPERATORS = (
    npu_rms_norm, npu_rotary_mul, npu_swiglu, npu_gelu, npu_fusion_attention,
    npu_fused_infer_attention_score, npu_prompt_flash_attention, npu_grouped_matmul,
    npu_weight_quant_batchmatmul,
)  # fmt: skip
