"""The decode step: one more token per sample, in as few launches as plain operators allow.

It computes what the modules compute, from their weights and through the slots of the model. What it saves:

    norm        two operators instead of eight: the layer norm of [x, -x], whose mean is zero, is the RMS norm
                of x
    rotary      one instead of three, except on the CPU: a product with a matrix that rotates q and k and
                keeps v, so that keys and values are adjacent and one copy writes both to the cache
    residuals   added by the preceding product
    router      its weights are converted to fp32 once per generation
    experts     chosen and shared experts in two products, by the `prepare` of the operator (see
                slots.Operator)

An implementation in the slot `decode_layer` takes over all of this for a whole layer.

Rounding: an operator accumulates in fp32 and rounds once, where the modules round in between. In fp16 and
bf16 the last bit can therefore differ from the modules; the step is closer to fp32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..decode_layer import LayerWeights, decode_layer
from ..decoder import Attention, DecoderLayer, DenseMLP, Experts, KVCache, MoE, RMSNorm
from ..joined import untouched
from .rotary import rotary_in_place

PLAIN = {nn.ModuleList, nn.Linear, Attention, DecoderLayer, DenseMLP, Experts, MoE, RMSNorm}


def possible(model) -> bool:
    """Whether the step may bypass the modules: none was replaced (e.g. quantised) and none has hooks."""
    return untouched((*model.model.layers.modules(), model.model.norm), PLAIN, model.slots)


class Step:
    """The decode step of one generation over the weights and a cache. batch: samples per step."""

    whole_layers = True  # whether an implementation in the slot `decode_layer` is used

    def __init__(self, model, cache: KVCache, batch: int):
        self.model, self.cache, self.slots = model, cache, model.slots
        self.c, body = model.decoder_config, model.model
        self.put, self.update = cache.put, cache.update
        self.whole = self.rotation = None
        if self.whole_layers and self.slots.decode_layer is not decode_layer:
            self.whole = [LayerWeights.of(layer, self.c.eps) for layer in body.layers]
            return  # nothing else is needed
        norm = getattr(self.slots.rms_norm, "prepare", None) or _each_call(self.slots.rms_norm)
        prepare_moe = getattr(self.slots.moe, "prepare", None)
        self.layers = []
        for layer in body.layers:
            is_moe = isinstance(layer.mlp, MoE)
            self.layers.append(
                (
                    layer,
                    norm(layer.input_layernorm.weight, self.c.eps),
                    norm(layer.post_attention_layernorm.weight, self.c.eps),
                    layer.mlp.gate.weight.float() if is_moe else None,
                    prepare_moe(layer.mlp, batch) if is_moe and prepare_moe else None,
                )
            )
        self.norm = norm(body.norm.weight, self.c.eps)
        if self.slots.rotary is rotary_in_place and self.launches_cost():
            self.rotation = RotationMatrices(self.c.head_dim, batch, model.dtype, model.device)

    def __call__(self, token: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        """token (b, 1), mask (b, 1, 1, filled + 1) or None -> logits (b, vocab) in the dtype of the model.

        positions (b, 1), or None if the cache holds no padding.
        """
        logits = self.run(token, positions, mask)
        self.cache.advance(1)
        return logits

    def run(self, token: Tensor, positions: Tensor | None, mask: Tensor | None) -> Tensor:
        at = self.cache.filled if positions is None else positions[:, 0]
        cos, sin = (table[at].view(-1, self.c.head_dim) for table in (self.cache.cos, self.cache.sin))
        if self.whole is not None:
            return self.run_whole(token, cos, sin, mask)
        rope = self.rotation(cos, sin) if self.rotation else (cos[:, None, None], sin[:, None, None])
        x = self.embed(token)
        for i, (layer, input_norm, mlp_norm, gate, experts) in enumerate(self.layers):
            x = self.attend(i, layer.self_attn, x, input_norm(x), rope, mask)
            x = self.mlp(layer.mlp, x, mlp_norm(x), gate, experts)
        return self.head(x, self.norm)

    def run_whole(self, token: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        """`run` with each layer computed by the slot `decode_layer`."""
        place, visible = self.place(), self.visible_places()
        seen = None if mask is None else mask[:, 0, 0]
        x = self.embed(token)
        for i, layer in enumerate(self.whole or ()):
            x = self.slots.decode_layer(x, layer, self.cache.data[i], place, cos, sin, visible, seen)
        return self.head(x, self.model.model.norm)

    def embed(self, token: Tensor) -> Tensor:
        """token (b, 1) -> the input of the first layer (b, d)."""
        return self.model.model.embed_tokens(token)[:, 0]

    def head(self, x: Tensor, norm: Callable) -> Tensor:
        """The output of the last layer (b, d) -> logits (b, vocab)."""
        return self.model.lm_head(norm(x))

    def place(self) -> Tensor:
        """(1) int64: where in the cache this token goes. Made on the device: no copy."""
        return torch.full((1,), self.cache.slot(), dtype=torch.long, device=self.model.device)

    def visible_places(self) -> int:
        """Places of the cache in use, this token's included."""
        return self.cache.visible()

    def launches_cost(self) -> bool:
        """Whether launches are expensive. On the CPU they are cheap, and small products are expensive."""
        return self.model.device.type != "cpu"

    def attend(self, i: int, module: Attention, x: Tensor, y: Tensor, rope, mask: Tensor | None) -> Tensor:
        b, h = len(x), self.c.heads
        qkv = F.linear(y, module.qkv_proj.weight)
        if self.rotation:
            rotated = torch.bmm(qkv.view(3 * b, h, -1), rope).view(b, 3, h, 1, -1)
            q = rotated[:, 0]
            k, v = self.put(i, rotated[:, 1:].transpose(0, 1))
        else:
            qk, v = qkv.view(b, 3 * h, 1, -1).split((2 * h, h), dim=1)
            q, k = self.slots.rotary(qk, *rope).chunk(2, dim=1)
            k, v = self.update(i, k, v)
        attended = self.slots.attention(q, k, v, mask, False)
        return torch.addmm(x, attended.reshape(b, -1), module.o_proj.weight.T)

    def mlp(self, module, x: Tensor, y: Tensor, gate: Tensor | None, prepared: Callable | None) -> Tensor:
        return self.dense(module, x, y) if gate is None else self.moe(module, x, y, gate, prepared)

    def dense(self, module: DenseMLP, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.slots.swiglu(F.linear(y, module.gate_up_proj.weight))
        return torch.addmm(x, hidden, module.down_proj.weight.T)

    def moe(self, module: MoE, x: Tensor, y: Tensor, gate: Tensor, prepared: Callable | None) -> Tensor:
        ids, weights = module.route(y, gate)
        if prepared is not None:
            return prepared(x, y, ids, weights)
        experts = module.experts
        routed = self.slots.moe(y, experts.gate_up_proj, experts.down_proj, ids, weights)
        return self.dense(module.shared_experts, x, y) + routed


class RotationMatrices:
    """The rotation at one position as matrices, computed once per token for all layers.

    q, k and v (3, h, k) are multiplied by (3, k, k). The matrix of v is the identity.
    """

    def __init__(self, width: int, batch: int, dtype: torch.dtype, device: torch.device):
        eye, half = torch.eye(width, dtype=dtype, device=device), width // 2  # made on the device: no copy
        swap = torch.cat((eye[half:], -eye[:half]))  # (left, right) @ swap = (-right, left)
        self.fixed, self.same, self.swap = (
            torch.stack(parts).repeat(batch, 1, 1)
            for parts in ((0 * eye, 0 * eye, eye), (eye, eye, 0 * eye), (swap, swap, 0 * eye))
        )
        self.batch = batch

    def __call__(self, cos: Tensor, sin: Tensor) -> Tensor:
        """cos, sin (1 or b, k) -> (3b, k, k)."""
        if len(cos) > 1:
            cos, sin = cos.repeat_interleave(3, 0)[:, None], sin.repeat_interleave(3, 0)[:, None]
        return torch.addcmul(self.fixed, self.same, cos).addcmul_(self.swap, sin)


def _each_call(rms_norm: Callable) -> Callable:
    """A `prepare` for an rms_norm without one."""
    return lambda weight, eps: lambda x: rms_norm(x, weight, eps)
