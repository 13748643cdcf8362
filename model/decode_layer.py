"""One layer of the decoder for one more token per sample: the slot `decode_layer`.

The slot spans the whole layer, so that an implementation can join operators across the borders of the other
slots. The reference composes plain operators; the network itself takes fast/step.py, which computes the same
through the other slots, as long as this slot holds the reference.

Shape letters: see slots.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Experts:
    """The mixture of experts of a layer. The m shared experts are one layer of m times the width."""

    gate: Tensor  # (e, d)
    gate_up: Tensor  # (e, 2i, d)
    down: Tensor  # (e, d, i)
    shared_gate_up: Tensor  # (2mi, d)
    shared_down: Tensor  # (d, mi)
    top: int
    renormalise: bool
    scale: float

    @classmethod
    def of(cls, mlp) -> Experts:
        """The weights of a decoder.MoE; nothing is copied."""
        return cls(
            mlp.gate.weight,
            mlp.experts.gate_up_proj,
            mlp.experts.down_proj,
            mlp.shared_experts.gate_up_proj.weight,
            mlp.shared_experts.down_proj.weight,
            mlp.top,
            mlp.renormalise,
            mlp.scale,
        )


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """What a layer consists of. mlp: (gate_up (2i, d), down (d, i)) of a dense layer, or its Experts."""

    input_norm: Tensor  # (d)
    qkv: Tensor  # (3d, d)
    out: Tensor  # (d, d)
    mlp_norm: Tensor  # (d)
    mlp: tuple[Tensor, Tensor] | Experts
    eps: float

    @classmethod
    def of(cls, layer, eps: float) -> LayerWeights:
        """The weights of a decoder.DecoderLayer; nothing is copied."""
        mlp = layer.mlp
        if hasattr(mlp, "gate"):
            parts: tuple[Tensor, Tensor] | Experts = Experts.of(mlp)
        else:
            parts = (mlp.gate_up_proj.weight, mlp.down_proj.weight)
        return cls(
            layer.input_layernorm.weight,
            layer.self_attn.qkv_proj.weight,
            layer.self_attn.o_proj.weight,
            layer.post_attention_layernorm.weight,
            parts,
            eps,
        )


def decode_layer(
    x: Tensor,
    layer: LayerWeights,
    kv: Tensor,
    place: Tensor,
    cos: Tensor,
    sin: Tensor,
    visible: int,
    mask: Tensor | None = None,
) -> Tensor:
    """The layer's output for one token per sample -> (b, d). Writes its key and value into the cache.

    x (b, d); kv (2, b, h, length, k), the layer's cache; place (1) int64, where the key goes; cos and sin
    (1 or b, k) at the token's position; visible: places of the cache in use, this one included; mask bool
    (b, visible), True: attend, or None.
    """
    b, _ = x.shape
    _, _, h, _, k = kv.shape
    norm = lambda x, weight: _rms_norm(x, weight, layer.eps)  # noqa: E731
    q, key, value = F.linear(norm(x, layer.input_norm), layer.qkv).view(b, 3, h, k).unbind(1)
    q, key = (_rotate(t, cos[:, None], sin[:, None]).to(kv.dtype) for t in (q, key))
    kv[0].index_copy_(2, place, key[:, :, None])
    kv[1].index_copy_(2, place, value[:, :, None])
    seen = None if mask is None else mask[:, None, None]
    attended = F.scaled_dot_product_attention(
        q[:, :, None], kv[0, :, :, :visible], kv[1, :, :, :visible], attn_mask=seen
    )
    x = x + F.linear(attended.reshape(b, h * k), layer.out)
    y = norm(x, layer.mlp_norm)
    if not isinstance(layer.mlp, Experts):
        return x + _gated(y, *layer.mlp)
    e = layer.mlp
    weights, ids = F.linear(y.float(), e.gate.float()).softmax(-1).topk(e.top, dim=-1)
    if e.renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    weights = weights * e.scale
    routed = torch.zeros(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    for slot in range(e.top):
        for row in range(b):
            expert = ids[row, slot]
            part = _gated(y[row : row + 1], e.gate_up[expert], e.down[expert])
            routed[row] += part[0] * weights[row, slot]
    return x + (routed.to(x.dtype) + _gated(y, e.shared_gate_up, e.shared_down))


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def _gated(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)
