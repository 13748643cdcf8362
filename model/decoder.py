"""The DeepSeek-V2 decoder: RMS norm, rotary attention, mixture of experts, static KV cache.

Shape letters: see slots.py.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .decode_layer import Experts as ExpertWeights
from .joined import Branch, untouched
from .parts import DecoderConfig
from .slots import Slots, mixture


def rotary_tables(
    positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """positions (b, n) -> cos, sin (b, 1, n, k) in `dtype`; angles in fp32, half-split layout.

    The frequencies are computed here and never stored. The original keeps them in a buffer that
    `.to(torch.bfloat16)` rounds, which changes the angle at position 1000 by 1.2 rad.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[:, None, :, None].float() * (1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class KVCache:
    """Keys and values of all layers, allocated once for `length` positions: (layers, 2, b, h, length, k).

    `filled` is the number of positions written so far. Layers write behind it; `advance` increases it after a
    pass. A RingCache (ring.py) writes over positions that are no longer visible.

    positions: length of the tables of rotary angles, if it is not `length`.
    """

    def __init__(
        self,
        c: DecoderConfig,
        batch: int,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        positions: int | None = None,
    ):
        self.data = torch.zeros(c.layers, 2, batch, c.heads, length, c.head_dim, dtype=dtype, device=device)
        self.filled = 0
        every = torch.arange(positions or length, device=device)[None]
        self.cos, self.sin = (t[0, 0] for t in rotary_tables(every, c.head_dim, c.rope_theta, dtype))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos, sin (b, 1, n, k) at positions (b, n): two look-ups instead of ten operators."""
        return self.cos[positions][:, None], self.sin[positions][:, None]

    @property
    def length(self) -> int:
        return self.data.shape[4]

    def slot(self, n: int = 1) -> int:
        """Where the next n positions are written. Raises ValueError if they do not fit."""
        if self.filled + n > self.length:
            raise ValueError(
                f"KV cache: {self.filled + n} positions do not fit the {self.length} it was allocated for"
            )
        return self.filled

    def visible(self, n: int = 1) -> int:
        """How many places hold keys once the next n positions are written."""
        return self.filled + n

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (b, h, n, k) behind the others; return all keys and values that are visible then."""
        n = k.shape[2]
        at, end = self.slot(n), self.visible(n)
        keys, values = self.data[layer]
        keys[:, :, at : at + n], values[:, :, at : at + n] = k, v
        return keys[:, :, :end], values[:, :, :end]

    def put(self, layer: int, kv: Tensor) -> tuple[Tensor, Tensor]:
        """`update` for one position whose keys and values are adjacent: kv (2, b, h, 1, k), one copy."""
        at, end = self.slot(), self.visible()
        self.data[layer, :, :, :, at : at + 1] = kv
        keys, values = self.data[layer]
        return keys[:, :, :end], values[:, :, :end]

    def advance(self, n: int) -> None:
        self.filled += n


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float, slots: Slots):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps, self.slots = eps, slots

    def forward(self, x: Tensor) -> Tensor:
        return self.slots.rms_norm(x, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, c: DecoderConfig, index: int, slots: Slots):
        super().__init__()
        self.qkv_proj = nn.Linear(c.width, 3 * c.width, bias=False)
        self.o_proj = nn.Linear(c.width, c.width, bias=False)
        self.heads, self.index, self.slots = c.heads, index, slots

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, causal: bool, cache: KVCache | None
    ) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv_proj(x).view(b, n, 3 * self.heads, -1).transpose(1, 2)  # b 3h n k
        qk, v = qkv.split((2 * self.heads, self.heads), dim=1)
        q, k = self.slots.rotary(qk, *rope).chunk(2, dim=1)  # rotated together: half the operators
        if cache is not None:
            k, v = cache.update(self.index, k, v)
        x = self.slots.attention(q, k, v, mask, causal)
        return self.o_proj(x.transpose(1, 2).reshape(b, n, -1))


class DenseMLP(nn.Module):
    """A SwiGLU layer whose gate and up projections are one matrix."""

    def __init__(self, width: int, hidden: int, slots: Slots):
        super().__init__()
        self.gate_up_proj = nn.Linear(width, 2 * hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self.slots = slots

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.slots.swiglu(self.gate_up_proj(x)))


class Experts(nn.Module):
    """The stacked weights of the routed experts of one layer."""

    def __init__(self, c: DecoderConfig):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(c.experts, 2 * c.expert_hidden, c.width))
        self.down_proj = nn.Parameter(torch.empty(c.experts, c.width, c.expert_hidden))


class MoE(nn.Module):
    def __init__(self, c: DecoderConfig, slots: Slots):
        super().__init__()
        self.gate = nn.Linear(c.width, c.experts, bias=False)
        self.experts = Experts(c)
        self.shared_experts = DenseMLP(c.width, c.shared_experts * c.expert_hidden, slots)
        self.top, self.renormalise, self.scale = c.experts_per_token, c.renormalise, c.expert_scale
        self.slots = slots

    def route(self, x: Tensor, gate: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (n, d) -> expert ids (n, top) and their weights (n, top) fp32: softmax over all experts.

        The weights are renormalised only if the config says so. gate: the weight of the router in fp32, if
        the caller keeps a copy.
        """
        # Autocast is disabled, because the original's "fp32" router silently ran in bf16 under autocast.
        with torch.autocast(x.device.type, enabled=False):
            gate = self.gate.weight.float() if gate is None else gate
            scores = F.linear(x.float(), gate).softmax(dim=-1)
        weights, ids = scores.topk(self.top, dim=-1)
        if self.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return ids, weights if self.scale == 1 else weights * self.scale

    def forward(self, x: Tensor) -> Tensor:  # (b, n, d)
        flat = x.reshape(-1, x.shape[-1])
        if self.spans():
            return self.slots.mixture(flat, ExpertWeights.of(self)).view_as(x)
        ids, weights = self.route(flat)
        routed = self.slots.moe(flat, self.experts.gate_up_proj, self.experts.down_proj, ids, weights)
        return routed.view_as(x) + self.shared_experts(x)

    def spans(self) -> bool:
        """Whether the slot `mixture` computes all of this, see slots.SPANNING."""
        kinds = {MoE, Experts, DenseMLP, nn.Linear}
        return self.slots.mixture is not mixture and untouched(self.modules(), kinds, self.slots)


class DecoderLayer(nn.Module):
    #: Where the weights are split over processes, the sums of their partial results, see parallel/tensor.py.
    sum_attention: Callable[[Tensor], Tensor] = staticmethod(lambda x: x)
    sum_mlp: Callable[[Tensor], Tensor] = staticmethod(lambda x: x)

    def __init__(self, c: DecoderConfig, index: int, slots: Slots):
        super().__init__()
        self.input_layernorm = RMSNorm(c.width, c.eps, slots)
        self.self_attn = Attention(c, index, slots)
        self.post_attention_layernorm = RMSNorm(c.width, c.eps, slots)
        dense = index < c.dense_layers
        self.mlp = DenseMLP(c.width, c.dense_hidden, slots) if dense else MoE(c, slots)

    def forward(self, x, rope, mask, causal, cache) -> Tensor:
        x = x + self.sum_attention(self.self_attn(self.input_layernorm(x), rope, mask, causal, cache))
        return x + self.sum_mlp(self.mlp(self.post_attention_layernorm(x)))

    def branches(self, *how) -> tuple[Branch, Branch]:
        """See joined.py. how: the arguments of `forward` behind x."""

        def attend(y: Tensor) -> Tensor:
            return self.sum_attention(self.self_attn(y, *how))

        def mix(y: Tensor) -> Tensor:
            return self.sum_mlp(self.mlp(y))

        return (self.input_layernorm, attend), (self.post_attention_layernorm, mix)
