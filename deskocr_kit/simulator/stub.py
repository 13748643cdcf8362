"""A stand-in for the package `torch_npu`, for code that imports it before it uses `torch.npu`.

It holds the device module and, in plain PyTorch, the few fused operators that ports most often call. With it
transformers and accelerate report an NPU. It is not torch_npu: `torch_npu.simulated` is True.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types

import torch


def npu_rms_norm(x, gamma, epsilon: float = 1e-6):
    """(x / rms(x) * gamma, 1 / rms(x)) over the last dimension, computed in fp32."""
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + epsilon)
    return (x.float() * scale).to(x.dtype) * gamma, scale


def npu_rotary_mul(x, r1, r2, rotary_mode: str = "half"):
    """x * cos + rotate(x) * sin for (batch, heads, tokens, even size); only the rotation by halves."""
    if rotary_mode != "half":
        raise NotImplementedError(
            f"npu_rotary_mul of the simulated NPU knows rotary_mode='half', not {rotary_mode!r}"
        )
    half = x.shape[-1] // 2
    return x * r1 + torch.cat((-x[..., half:], x[..., :half]), -1) * r2


def npu_swiglu(x, dim: int = -1):
    """silu(first half) * second half."""
    gate, up = x.chunk(2, dim)
    return torch.nn.functional.silu(gate) * up


def npu_fusion_attention(
    query,
    key,
    value,
    head_num,
    input_layout,
    pse=None,
    padding_mask=None,
    atten_mask=None,
    scale=1.0,
    keep_prob=1.0,
    **more,
):
    """Attention in the layouts BNSD, BSND, BSH and SBH; `atten_mask` is True where a key is dropped, as on an
    NPU."""
    if input_layout not in ("BNSD", "BSND", "BSH", "SBH"):
        raise NotImplementedError(
            f"npu_fusion_attention of the simulated NPU does not know the layout {input_layout!r}"
        )

    def to_heads(x):  # -> (batch, heads, tokens, channels)
        if input_layout == "SBH":
            x = x.transpose(0, 1)
        if x.dim() == 3:
            x = x.unflatten(-1, (head_num, -1))
        return x if input_layout == "BNSD" else x.transpose(1, 2)

    keep = None if atten_mask is None else ~atten_mask.bool()
    if pse is not None:
        keep = pse if keep is None else pse.masked_fill(~keep, float("-inf"))
    out = torch.nn.functional.scaled_dot_product_attention(
        to_heads(query), to_heads(key), to_heads(value), keep, dropout_p=1 - keep_prob, scale=scale
    )
    if input_layout != "BNSD":
        out = out.transpose(1, 2)
    if input_layout in ("BSH", "SBH"):
        out = out.flatten(2)
    out = out.transpose(0, 1) if input_layout == "SBH" else out
    return out, None, None, None, 0, 0, 0


def install() -> types.ModuleType:
    """Put the stand-in into sys.modules; RuntimeError where a torch_npu is already there."""
    if sys.modules.get("torch_npu") is not None:
        raise RuntimeError("torch_npu is already imported in this process")
    module = types.ModuleType("torch_npu", __doc__)
    module.__version__ = torch.__version__.split("+")[0] + "+simulated"
    module.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None, is_package=True)
    module.__path__ = []
    module.npu, module.simulated = torch.npu, True
    for function in (npu_rms_norm, npu_rotary_mul, npu_swiglu, npu_fusion_attention):
        setattr(module, function.__name__, function)
    module.npu_format_cast = lambda tensor, acl_format: tensor
    sys.modules["torch_npu"], sys.modules["torch_npu.npu"] = module, torch.npu
    return module
