"""Fused and plain operators at the sizes of DeepSeek-OCR, each examined in three ways.

  fake    under FakeTensorMode: the wheel's shape functions in Python
  real    on the stub device: the outputs that its C++ code allocates before it launches
  calls   the functions of that launch: aclnn functions of CANN, or "aclop:" for the legacy route

The values of the outputs have no meaning: no kernel of the stub device computes.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
import torch_npu
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.real_wheel.inside import calls


def half(*shape):
    return shape, torch.float16


def whole(*shape):
    return shape, torch.int32


def flags(*shape):
    return shape, torch.bool


# Language model: 5 tokens of 1280 = 10 heads of 128; 64 experts, 6 per token, 896 wide; a cache of 273.
# SAM: windows of 14 x 14 = 196 tokens, 12 heads of 64. CLIP: 257 tokens, 16 heads of 64.
CASES = {
    "npu_rms_norm": ([half(1, 5, 1280), half(1280)], lambda x, g: torch_npu.npu_rms_norm(x, g, 1e-6)),
    "npu_add_rms_norm": (
        [half(1, 5, 1280), half(1, 5, 1280), half(1280)],
        lambda x, y, g: torch_npu.npu_add_rms_norm(x, y, g, 1e-6),
    ),
    "npu_rotary_mul": (
        [half(1, 10, 5, 128), half(1, 1, 5, 128), half(1, 1, 5, 128)],
        lambda x, cos, sin: torch_npu.npu_rotary_mul(x, cos, sin),
    ),
    "npu_swiglu": ([half(5, 2 * 896)], lambda x: torch_npu.npu_swiglu(x, dim=-1)),
    "npu_gelu": ([half(1, 257, 4096)], lambda x: torch_npu.npu_gelu(x, approximate="none")),
    "npu_fusion_attention": (
        [half(1, 16, 257, 64)] * 3,
        lambda q, k, v: torch_npu.npu_fusion_attention(q, k, v, 16, "BNSD", scale=0.125)[:4],
    ),
    "npu_prompt_flash_attention": (
        [half(25, 12, 196, 64)] * 3 + [half(25, 12, 196, 196)],
        lambda q, k, v, bias: torch_npu.npu_prompt_flash_attention(
            q,
            k,
            v,
            pse_shift=bias,
            num_heads=12,
            scale_value=0.125,
            next_tokens=2147483647,
            input_layout="BNSD",
        ),
    ),
    "npu_fused_infer_attention_score": (
        [half(1, 10, 1, 128), half(1, 10, 273, 128), half(1, 10, 273, 128)],
        lambda q, k, v: torch_npu.npu_fused_infer_attention_score(
            q, k, v, num_heads=10, scale=128**-0.5, input_layout="BNSD", softmax_lse_flag=True
        ),
    ),
    "npu_moe_gating_top_k_softmax": (
        [half(5, 64)],
        lambda logits: torch_npu.npu_moe_gating_top_k_softmax(logits, k=6),
    ),
    "npu_moe_init_routing": (
        [half(5, 1280), whole(5, 6), whole(5, 6)],
        lambda x, rows, experts: torch_npu.npu_moe_init_routing(x, rows, experts, active_num=5),
    ),
    "npu_grouped_matmul": (
        [half(30, 1280), half(64, 1280, 896), ((64,), torch.int64)],
        lambda x, w, sizes: torch_npu.npu_grouped_matmul(
            [x], [w], group_list=sizes, split_item=3, group_type=0, group_list_type=1
        ),
    ),
    "npu_moe_finalize_routing": (
        [half(30, 1280), half(5, 6), whole(30), whole(5, 6)],
        lambda x, scales, rows, experts: torch_npu.npu_moe_finalize_routing(
            x, None, None, None, scales, rows, experts
        ),
    ),
    "conv2d": ([half(1, 3, 64, 64), half(768, 3, 16, 16)], lambda x, w: F.conv2d(x, w, stride=16)),
    "unfold": ([half(1, 3, 64, 64)], lambda x: F.unfold(x, kernel_size=16, stride=16)),
    "masked_scatter_": (
        [half(273, 1280), flags(273, 1), half(273, 1280)],
        lambda x, mask, rows: x.masked_scatter_(mask, rows),
    ),
    "index_copy": (
        [half(273, 1280), ((256,), torch.int64), half(256, 1280)],
        lambda x, where, rows: x.index_copy(0, where, rows),
    ),
    "sdpa": ([half(1, 16, 257, 64)] * 3, F.scaled_dot_product_attention),
    "sdpa with a float mask": (
        [half(25, 12, 196, 64)] * 3 + [half(25, 12, 196, 196)],
        lambda q, k, v, bias: F.scaled_dot_product_attention(q, k, v, attn_mask=bias),
    ),
}


def outputs(result) -> list:
    """[[shape, dtype, device kind], ...] of every tensor in the result."""
    if isinstance(result, torch.Tensor):
        return [[list(result.shape), str(result.dtype).removeprefix("torch."), result.device.type]]
    return [row for each in result for row in outputs(each)] if isinstance(result, (list, tuple)) else []


def attempt(action):
    try:
        return outputs(action())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


torch.npu.set_compile_mode(jit_compile=False)
torch.npu.config.allow_internal_format = False
found = {}
for name, (inputs, operator) in CASES.items():
    with FakeTensorMode():
        made = [torch.empty(shape, dtype=dtype, device="npu") for shape, dtype in inputs]
        fake = attempt(lambda: operator(*made))  # noqa: B023 (called at once)
    made = [torch.zeros(shape, dtype=dtype).to("npu") for shape, dtype in inputs]
    calls.forget()
    real = attempt(lambda: operator(*made))  # noqa: B023
    found[name] = {"fake": fake, "real": real, "calls": calls.made()}
print(json.dumps(found))
