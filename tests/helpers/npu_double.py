"""A stand-in for torch_npu on the CPU, for code that no machine here can run.

Each operator first binds its call to the schemas of the published wheels, both the oldest and the newest that
we have, as torch itself would: too many arguments, an unknown keyword, a number for a tensor are errors. Then
it computes what op-plugin's documents say the operator computes, with its traps: masks drop where they are
True, `next_tokens` of the prompt attention is causal by default, a (1, 1, 1, keys) mask is ignored past 512.
"""

from __future__ import annotations

import contextlib
import sys
import types

import torch
import torch.nn.functional as F

from tests.helpers.paths import ASCEND

WHEELS = ("2.6.0.post5", "2.13.0")
called: list[str] = []


def schemas(version: str) -> dict[str, list[torch._C.FunctionSchema]]:
    """{operator: its overloads} of one wheel."""
    found: dict[str, list] = {}
    for line in (ASCEND / f"npu_op_schemas_torch_npu_{version}.txt").read_text().splitlines():
        if line.startswith("npu::"):
            name = line.partition("(")[0].removeprefix("npu::").partition(".")[0]
            found.setdefault(name, []).append(line)
    return found


_LINES = {version: schemas(version) for version in WHEELS}


def fits(value, kind: str) -> bool:
    """Whether a Python value may be passed for an argument of a schema's type."""
    if kind.startswith("Optional["):
        return value is None or fits(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        return isinstance(value, (list, tuple)) and all(fits(each, kind[len("List[") : -1]) for each in value)
    kinds = {"Tensor": torch.Tensor, "str": str, "bool": bool, "int": int, "float": (int, float)}
    if isinstance(value, bool) and kind != "bool":
        return False
    return kind in kinds and isinstance(value, kinds[kind])


def bind(schema: torch._C.FunctionSchema, args: tuple, kwargs: dict) -> str:
    """ "" where the call fits the schema, else what does not."""
    arguments = list(schema.arguments)
    by_place = [each for each in arguments if not each.kwarg_only]
    if len(args) > len(by_place):
        return f"{len(args)} positional arguments, at most {len(by_place)}"
    given = {each.name: value for each, value in zip(by_place, args, strict=False)}
    if twice := given.keys() & kwargs.keys():
        return f"given twice: {twice}"
    given |= kwargs
    known = {each.name: each for each in arguments}
    for name, value in given.items():
        if name not in known:
            return f"no argument {name!r}"
        if not fits(value, str(known[name].type)):
            return f"{name} wants {known[name].type}, got {type(value).__name__}"
    missing = [each.name for each in arguments if each.name not in given and not each.has_default_value()]
    return f"missing: {missing}" if missing else ""


def check_call(name: str, args: tuple, kwargs: dict) -> None:
    """Raise TypeError unless the call fits one overload in every wheel."""
    for version in WHEELS:
        lines = _LINES[version].get(name, [])
        why = [bind(torch._C.parse_schema(line), args, kwargs) for line in lines]
        if not lines or all(why):
            raise TypeError(f"torch_npu.{name} of {version}: {'; '.join(why) or 'no such operator'}")
    called.append(name)


# ---------------------------------------------------------------------- what the documents say
def npu_rms_norm(x, gamma, epsilon=1e-6):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + epsilon)
    return (x.float() * scale * gamma.float()).to(x.dtype), scale


def npu_rotary_mul(x, r1, r2, rotary_mode="half"):
    assert rotary_mode == "half" and x.dim() == 4 and x.is_contiguous()
    left, right = x.chunk(2, -1)
    return x * r1 + torch.cat((-right, left), -1) * r2


def npu_swiglu(x, dim=-1):
    assert x.is_contiguous()
    gate, up = x.chunk(2, dim)
    return F.silu(gate) * up


def npu_gelu(x, *, approximate="none"):
    return F.gelu(x, approximate=approximate)


def npu_fusion_attention(
    q, k, v, head_num, input_layout, pse=None, padding_mask=None, atten_mask=None, scale=1.0, **rest
):
    assert input_layout == "BNSD" and head_num == q.shape[1] and not rest and q.shape[-1] == v.shape[-1]
    if atten_mask is not None:
        b, n, s, t = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
        allowed = [(b, n, s, t), (b, 1, s, t), (1, 1, s, t), (s, t)]
        if tuple(atten_mask.shape) not in allowed:
            raise RuntimeError(f"atten_mask {tuple(atten_mask.shape)}: error code is 561103")
    keep = None if atten_mask is None else ~atten_mask
    return F.scaled_dot_product_attention(q, k, v, keep, scale=scale), None, None, None, 0, 0, 0


def npu_fused_infer_attention_score(
    q, k, v, *, num_heads=1, scale=1.0, input_layout="BSH", atten_mask=None, actual_seq_lengths_kv=None,
    **rest,
):  # fmt: skip
    assert input_layout == "BNSD" and num_heads == q.shape[1] and not rest
    assert k.is_contiguous() and v.is_contiguous()
    if actual_seq_lengths_kv is not None:
        (length,) = set(actual_seq_lengths_kv)
        k, v = k[:, :, :length], v[:, :, :length]
    keep = None
    if atten_mask is not None:
        keep = ~atten_mask
        keep[..., 512:] = True  # the trap
    return F.scaled_dot_product_attention(q, k, v, keep, scale=scale), torch.zeros(1)


def npu_prompt_flash_attention(
    q, k, v, *, pse_shift=None, num_heads=1, scale_value=1.0, next_tokens=0, input_layout="BSH"
):
    assert input_layout == "BNSD" and num_heads == q.shape[1]
    if q.dtype not in (torch.float16, torch.bfloat16) or (
        pse_shift is not None and pse_shift.dtype != q.dtype
    ):
        raise RuntimeError("call aclnnPromptFlashAttentionV3 failed, error code is 561002")
    bias = torch.zeros(q.shape[-2], k.shape[-2], dtype=q.dtype) if pse_shift is None else pse_shift
    if next_tokens < k.shape[-2]:
        ahead = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(next_tokens + 1)
        bias = bias.masked_fill(ahead, -torch.inf)
    return F.scaled_dot_product_attention(q, k, v, bias, scale=scale_value)


def npu_grouped_matmul(x, weight, *, group_list=None, split_item=0, group_type=None, group_list_type=0):
    assert len(x) == len(weight) == 1 and split_item in (2, 3) and group_type == 0 and group_list_type == 0
    assert group_list.dtype == torch.int64 and group_list[-1] == len(x[0])
    if x[0].dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("call aclnnGroupedMatmulV4 failed, error code is 561002")
    ends = [0, *group_list.tolist()]
    parts = [x[0][a:b] @ w for a, b, w in zip(ends[:-1], ends[1:], weight[0], strict=True)]
    return [torch.cat(parts)]


def npu_weight_quant_batchmatmul(
    x, weight, antiquant_scale, antiquant_offset=None, quant_scale=None, quant_offset=None, bias=None,
    antiquant_group_size=0, inner_precise=0,
):  # fmt: skip
    assert antiquant_offset is quant_scale is quant_offset is None and inner_precise == 0
    k, n = weight.shape
    if weight.dtype != torch.int8 or antiquant_scale.dtype != x.dtype or x.dtype == torch.float32:
        raise RuntimeError("call aclnnWeightQuantBatchMatmulV2 failed, error code is 161002")
    if (g := antiquant_group_size) == 0:
        assert antiquant_scale.shape == (n,)
    else:
        assert g % 32 == 0 and 32 <= g <= k - 1 and antiquant_scale.shape == (-(-k // g), n)
        antiquant_scale = antiquant_scale.repeat_interleave(g, 0)[:k]
    y = x.float() @ (weight.float() * antiquant_scale.float())
    return (y if bias is None else y + bias.float()).to(x.dtype)


OPERATORS = (
    npu_rms_norm, npu_rotary_mul, npu_swiglu, npu_gelu, npu_fusion_attention,
    npu_fused_infer_attention_score, npu_prompt_flash_attention, npu_grouped_matmul,
    npu_weight_quant_batchmatmul,
)  # fmt: skip


@contextlib.contextmanager
def installed(**instead):
    """`import torch_npu` finds the stand-in; `instead` replaces operators by name. Yields the module."""
    before = sys.modules.get("torch_npu")
    module = types.ModuleType("torch_npu")
    for function in OPERATORS:
        setattr(
            module, function.__name__, _bound(function.__name__, instead.get(function.__name__, function))
        )
    sys.modules["torch_npu"] = module
    called.clear()
    try:
        yield module
    finally:
        if before is None:
            del sys.modules["torch_npu"]
        else:
            sys.modules["torch_npu"] = before


def _bound(name: str, function):
    def operator(*args, **kwargs):
        check_call(name, args, kwargs)
        return function(*args, **kwargs)

    return operator
