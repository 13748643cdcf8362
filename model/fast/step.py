"""One more token per sample, straight through the decoder: the decode step in as few launches as plain
operators allow.

It computes what the modules compute, from their weights and through the model's slots. What it saves:

    norm        two operators for eight: the layer norm of [x, -x], whose mean is zero, is the RMS norm of x
    rotary      one for three, off the CPU: a product with the matrix that turns q and k and leaves v alone,
                so that keys and values lie side by side and are written to the cache at once
    residuals   added by the product in front of them
    router      its fp32 weights made once per reading
    experts     an implementation of `moe` may have `.prepared`, see model/slots.py: chosen and shared experts
                in two products

Rounding: sums are made in fp32 inside an operator and rounded once, where the modules round in between. So in
fp16 and bf16 the last bit differs from theirs, on the side of fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from model.decoder import Attention, DecoderLayer, DenseMLP, Experts, KVCache, MoE, RMSNorm
from model.fast.rotary import rotary_in_place

PLAIN = {nn.ModuleList, nn.Linear, Attention, DecoderLayer, DenseMLP, Experts, MoE, RMSNorm}


def possible(model) -> bool:
    """Whether the step may go past the modules: none was exchanged (quantised, say), and nobody listens."""
    return all(
        type(module) in PLAIN
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and getattr(module, "slots", model.slots) is model.slots
        for module in (*model.model.layers.modules(), model.model.norm)
    )


class Step:
    """The step of one reading: a function over the weights and a cache. batch: samples per step."""

    def __init__(self, model, cache: KVCache, batch: int):
        self.model, self.cache, self.slots = model, cache, model.slots
        self.c, body = model.config.decoder, model.model
        norm = getattr(self.slots.rms_norm, "prepared", None) or _unprepared(self.slots.rms_norm)
        mixture = getattr(self.slots.moe, "prepared", None)
        self.layers = []
        for layer in body.layers:
            mixing = isinstance(layer.mlp, MoE)
            self.layers.append(
                (
                    layer,
                    norm(layer.input_layernorm.weight, self.c.eps),
                    norm(layer.post_attention_layernorm.weight, self.c.eps),
                    layer.mlp.gate.weight.float() if mixing else None,
                    mixture(layer.mlp, batch) if mixing and mixture else None,
                )
            )
        self.norm = norm(body.norm.weight, self.c.eps)
        self.put, self.update = cache.put, cache.update
        self.turn = None
        if self.slots.rotary is rotary_in_place and self.launches_cost():
            self.turn = Turn(self.c.head_dim, batch, model.dtype, model.device)

    def __call__(self, token: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        """token (b, 1), mask (b, 1, 1, filled + 1) or None -> logits (b, vocab) in the model's dtype.

        positions (b, 1), or None where each sample is as long as the cache is filled.
        """
        logits = self.run(token, positions, mask)
        self.cache.advance(1)
        return logits

    def run(self, token: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        at = self.cache.filled if positions is None else positions[:, 0]
        cos, sin = (table[at].view(-1, self.c.head_dim) for table in (self.cache.cos, self.cache.sin))
        rope = self.turn(cos, sin) if self.turn else (cos[:, None, None], sin[:, None, None])
        x = self.model.model.embed_tokens(token)[:, 0]
        for i, (layer, before, between, gate, mixture) in enumerate(self.layers):
            x = self.attend(i, layer.self_attn, x, before(x), rope, mask)
            y = between(x)
            x = self.mix(layer.mlp, x, y, gate, mixture) if gate is not None else self.dense(layer.mlp, x, y)
        return self.model.lm_head(self.norm(x))

    def launches_cost(self) -> bool:
        """On the host they cost little, and small products much."""
        return self.model.device.type != "cpu"

    def attend(self, i: int, module: Attention, x: Tensor, y: Tensor, rope, mask: Tensor | None) -> Tensor:
        b, d = x.shape
        h = self.c.heads
        qkv = F.linear(y, module.qkv_proj.weight)
        if self.turn:
            turned = torch.bmm(qkv.view(3 * b, h, -1), rope).view(b, 3, h, 1, -1)
            q = turned[:, 0]
            k, v = self.put(i, turned[:, 1:].transpose(0, 1))
        else:
            qk, v = qkv.view(b, 3 * h, 1, -1).split((2 * h, h), dim=1)
            q, k = self.slots.rotary(qk, *rope).chunk(2, dim=1)
            k, v = self.update(i, k, v)
        seen = self.slots.attention(q, k, v, mask, False)
        return torch.addmm(x, seen.reshape(b, d), module.o_proj.weight.T)

    def dense(self, module: DenseMLP, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.slots.swiglu(F.linear(y, module.gate_up_proj.weight))
        return torch.addmm(x, hidden, module.down_proj.weight.T)

    def mix(self, module: MoE, x: Tensor, y: Tensor, gate: Tensor, mixture: Callable | None) -> Tensor:
        ids, weights = module.route(y, gate)
        if mixture is not None:
            return mixture(x, y, ids, weights)
        experts = module.experts
        routed = self.slots.moe(y, experts.gate_up_proj, experts.down_proj, ids, weights)
        return self.dense(module.shared_experts, x, y) + routed


class Turn:
    """The rotation at one position as matrices: q, k and v (3, h, k) times (3, k, k), of which the last one
    changes nothing. Made once per token, for all layers.
    """

    def __init__(self, width: int, batch: int, dtype: torch.dtype, device: torch.device):
        eye, half = torch.eye(width, dtype=dtype, device=device), width // 2  # nothing to carry up
        swap = torch.cat((eye[half:], -eye[:half]))  # (left, right) @ swap = (-right, left)
        self.still, self.same, self.swap = (
            torch.stack(parts).repeat(batch, 1, 1)
            for parts in ((0 * eye, 0 * eye, eye), (eye, eye, 0 * eye), (swap, swap, 0 * eye))
        )
        self.batch = batch

    def __call__(self, cos: Tensor, sin: Tensor) -> Tensor:
        """cos, sin (1 or b, k) -> (3b, k, k)."""
        if len(cos) > 1:
            cos, sin = cos.repeat_interleave(3, 0)[:, None], sin.repeat_interleave(3, 0)[:, None]
        return torch.addcmul(self.still, self.same, cos).addcmul_(self.swap, sin)


def _unprepared(function: Callable) -> Callable:
    return lambda weight, eps: lambda x: function(x, weight, eps)
