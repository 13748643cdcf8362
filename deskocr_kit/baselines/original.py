"""The decoder as the original runs it: the baseline for launches per token.

Written after the original's code (its decoder file, and transformers 4.46 around it), not after ours: q, k, v
and gate, up are separate; cosines and sines are computed in every layer; the cache grows by `cat`; attention
uses plain operators and an additive mask; norms run in fp32, eight operators each; the router runs in fp32;
the experts run one after the other, and the host counts, sorts and reads them once per layer. Around it is
the greedy loop with its growing mask and ids, the n-gram guard on the host, the streamer and the end test.

Only these two parts are here. The count is therefore rather too low: it lacks the casts of autocast, the
copies that a deployment adds, and everything that transformers does once per call. The baseline uses the
weights of one of our models in place and gives the same tokens (tests/baselines/test_original_loop.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.decoder import DecoderLayer
from model.network import Network
from model.ngram import banned_tokens
from model.slots import rms_norm, rotary


@dataclass
class Original:
    """State of one reading.

    model: one of ours; only its weights and config are used. mask: (b, filled), 1 for attended positions; it
    grows with every token. keys, values: per layer (b, h, filled, k).
    """

    model: Network
    mask: Tensor
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def __post_init__(self):
        self.c = self.model.config.decoder
        even = torch.arange(0, self.c.head_dim, 2, dtype=torch.float32, device=self.mask.device)
        self.frequencies = 1.0 / self.c.rope_theta ** (even / self.c.head_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (b, n, d) -> logits (b, n, vocab) fp32."""
        positions = self.mask.long().cumsum(-1) - 1
        positions = positions.masked_fill_(self.mask == 0, 1)[:, -x.shape[1] :]
        mask = self.additive(x)
        for i, layer in enumerate(self.model.model.layers):
            assert isinstance(layer, DecoderLayer)
            y = rms_norm(x, layer.input_layernorm.weight, self.c.eps)
            x = x + self.attention(i, layer.self_attn, y, positions, mask)
            y = rms_norm(x, layer.post_attention_layernorm.weight, self.c.eps)
            x = x + (dense(layer.mlp, y) if i < self.c.dense_layers else self.mixture(layer.mlp, y))
        return self.model.lm_head(rms_norm(x, self.model.model.norm.weight, self.c.eps)).float()

    def additive(self, x: Tensor) -> Tensor:
        """The additive mask (b, 1, n, filled): 0 for visible positions, else the dtype's smallest number."""
        n, filled = x.shape[1], self.mask.shape[1]
        least = torch.finfo(x.dtype).min
        hidden = 1.0 - self.mask[:, None, None, :].expand(-1, 1, n, filled).to(x.dtype)
        hidden = hidden.masked_fill(hidden.to(torch.bool), least)
        if n > 1:
            ahead = torch.ones(n, filled, dtype=torch.bool, device=x.device).triu(filled - n + 1)
            hidden = hidden.masked_fill(ahead, least)
        return hidden

    def attention(self, i: int, module, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = (
            F.linear(x, weight).view(b, n, self.c.heads, -1).transpose(1, 2)
            for weight in module.qkv_proj.weight.split(d)
        )
        angles = self.frequencies[None, :, None].expand(b, -1, 1) @ positions[:, None, :].float()
        angles = angles.transpose(1, 2)
        angles = torch.cat((angles, angles), dim=-1)
        scaling = 1.0  # for rope types that stretch; the default type multiplies too
        cos = (angles.cos() * scaling).to(x.dtype)[:, None]
        sin = (angles.sin() * scaling).to(x.dtype)[:, None]
        q, k = rotary(q, cos, sin), rotary(k, cos, sin)
        if i < len(self.keys):
            k = self.keys[i] = torch.cat((self.keys[i], k), dim=-2)
            v = self.values[i] = torch.cat((self.values[i], v), dim=-2)
        else:
            self.keys.append(k)
            self.values.append(v)
        scores = torch.matmul(q, k.transpose(2, 3)) / self.c.head_dim**0.5 + mask
        share = F.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
        seen = torch.matmul(share, v).transpose(1, 2).contiguous()
        return F.linear(seen.reshape(b, n, d), module.o_proj.weight)

    def mixture(self, mlp, x: Tensor) -> Tensor:
        """Router, routed experts and shared experts: (b, n, d) -> (b, n, d)."""
        flat = x.view(-1, x.shape[-1])
        scores = F.linear(flat.type(torch.float32), mlp.gate.weight.type(torch.float32))
        scores = scores.softmax(dim=-1, dtype=torch.float32)
        weights, ids = scores.topk(self.c.experts_per_token, dim=-1, sorted=False)
        if self.c.renormalise:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        else:
            weights = weights * self.c.expert_scale
        y = self.routed(mlp.experts, flat, ids, weights).view(x.shape)
        return y + dense(mlp.shared_experts, x)

    def routed(self, experts, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """Count, sort, read the rows per expert from the device, run each expert, restore the order."""
        counts = ids.new_zeros(len(ids), self.c.experts)
        counts.scatter_(1, ids, 1)
        counts = counts.sum(dim=0)
        order = ids.view(-1).argsort()
        rows = x[order // ids.shape[1]]
        done, start = [], 0
        for expert, size in enumerate(counts.cpu().tolist()):  # the host waits here
            if size:
                gate, up = experts.gate_up_proj[expert].chunk(2)
                done.append(swiglu_mlp(rows[start : start + size], gate, up, experts.down_proj[expert]))
                start += size
        sorted_ = torch.cat(done)
        y = torch.empty_like(sorted_)
        y[order] = sorted_
        y = y.view(*ids.shape, -1).type(weights.dtype).mul_(weights.unsqueeze(-1))
        return y.sum(dim=1).type(x.dtype)


def dense(module, x: Tensor) -> Tensor:
    gate, up = module.gate_up_proj.weight.chunk(2)
    return swiglu_mlp(x, gate, up, module.down_proj.weight)


def swiglu_mlp(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def pick(logits: Tensor, ids: Tensor, going: Tensor, ends: Tensor, pad: int, ngram: int) -> tuple:
    """The greedy step of transformers: logits (b, n, vocab), ids (b, n), going (b) -> longer ids, going."""
    scores = logits[:, -1].clone()
    for i, sequence in enumerate(ids.tolist()):  # the n-gram guard reads it all: the host waits
        if banned := sorted(banned_tokens(sequence, ngram)):
            scores[i, banned] = -torch.inf
    token = scores.argmax(dim=-1)
    token = token * going + pad * (1 - going)
    ids = torch.cat((ids, token[:, None]), dim=-1)
    token.cpu()  # to the streamer: the host waits
    going = going & ~torch.isin(ids[:, -1], ends)
    return ids, going


def generate(model, embeds: Tensor, ids: Tensor, mask: Tensor, new: int, ends, pad=2, ngram=0) -> Tensor:
    """Greedy decoding: embeds (b, n, d) of ids (b, n), mask (b, n) -> ids (b, n + at most new)."""
    going, stop = ids.new_ones(len(ids)), torch.tensor(sorted(ends), dtype=torch.long, device=ids.device)
    path, x = Original(model, mask), embeds
    for _ in range(new):
        ids, going = pick(path.forward(x), ids, going, stop, pad, ngram)
        if going.max() == 0:  # the host waits again
            break
        path.mask = torch.cat((path.mask, path.mask.new_ones(len(ids), 1)), dim=-1)
        x = model.model.embed_tokens(ids[:, -1:])
    return ids
