"""Probes of the slots that span a whole decode step: `decode_layer` and `choose`.

Their arguments are not all tensors, and `choose` writes its results. So each probe passes the tensors alone,
and its `call` puts them in place.
"""

from __future__ import annotations

import torch

from model.choose import Rules
from model.decode_layer import Experts, LayerWeights

from .probe import Probe, Sizes, rand


def decode_layer(s: Sizes) -> list[Probe]:
    """One token through a dense layer and through one with experts; batches with padding; a ring."""
    lm = s.config.decoder
    size = (
        lm.width, lm.heads, lm.dense_hidden, lm.expert_hidden, lm.experts, lm.shared_experts,
        lm.experts_per_token,
    )  # fmt: skip

    def scene(b, length, at, width, heads, dense, hidden, experts, shared, top, mixed, masked=False):
        def make(g):
            d = width
            part = lambda *shape: rand(g, *shape, scale=shape[-1] ** -0.5)  # noqa: E731
            mlp: tuple[torch.Tensor, ...] = (part(2 * dense, d), part(d, dense))
            if mixed:
                mlp = (
                    part(experts, d),
                    part(experts, 2 * hidden, d),
                    part(experts, d, hidden),
                    part(2 * shared * hidden, d),
                    part(d, shared * hidden),
                )
            angles = rand(g, b, d // heads)
            mask = torch.rand(b, length, generator=g) < 0.8
            mask[:, at] = True
            return (
                rand(g, b, d),
                1 + rand(g, d, scale=0.1),
                part(3 * d, d),
                part(d, d),
                1 + rand(g, d, scale=0.1),
                rand(g, 2, b, heads, length, d // heads),
                torch.tensor([at]),
                angles.cos(),
                angles.sin(),
                mask if masked else torch.ones(0, dtype=torch.bool),
                *mlp,
            )

        def call(function, x, norm, qkv, out, mlp_norm, kv, place, cos, sin, mask, *mlp):
            if mixed:
                gate, gate_up, down, shared_gate_up, shared_down = mlp
                parts = Experts(gate, gate_up, down, shared_gate_up, shared_down, top, False, 1.0)
            layer = LayerWeights(norm, qkv, out, mlp_norm, parts if mixed else mlp, 1e-6)
            return function(x, layer, kv, place, cos, sin, kv.shape[3], mask if mask.numel() else None)

        return {"make": make, "call": call}

    def probe(name, made, real=False):
        return Probe("decode_layer", name, made["make"], real, call=made["call"], writes=True)

    small = (24, 3, 40, 16, 5, 2, 2)
    length = s.prompt + 100
    return [
        probe("a dense layer", scene(1, length, length - 1, *size, mixed=False), True),
        probe("a layer with experts", scene(1, length, length - 1, *size, mixed=True), True),
        probe("a batch with padding", scene(3, 31, 30, *small, mixed=True, masked=True)),
        probe("a key in the middle of a ring", scene(1, 70, 17, *small, mixed=False)),
    ]


def choose(s: Sizes) -> list[Probe]:
    """The choice with and without the guard -> (b, 2): the chosen token and its log-probability."""
    vocab = s.config.decoder.vocab

    def scene(b, vocabulary, filled, size, few):
        def make(g):
            tokens = torch.randint(0, few, (b, filled + 1), generator=g)
            # Numbers that bf16 holds; the largest 16 differ, so that rounding and ties decide nothing.
            order = torch.stack([torch.randperm(vocabulary, generator=g) for _ in range(b)])
            return torch.where(order < 16, 4.0 + 0.5 * order, order % 61 * 0.125 - 4.0), tokens

        def call(function, logits, tokens):
            tokens = tokens.clone()
            best = logits.new_zeros(tokens.shape)
            logprobs = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
            finished = torch.zeros(b, 1, dtype=torch.bool, device=tokens.device)
            function(logits, tokens, filled, 0, best, logprobs, finished, Rules(size=size))
            return torch.stack((tokens[:, filled].float(), logprobs[:, filled]), 1)

        return {"make": make, "call": call}

    def probe(name, made, real=False):
        return Probe("choose", name, made["make"], real, call=made["call"], wide=torch.float32, writes=True)

    return [
        probe("a token without the guard", scene(1, vocab, s.prompt, 0, vocab), True),
        probe("a token with the guard", scene(1, vocab, s.prompt, 20, vocab), True),
        probe("every token but few was used", scene(3, 12, 40, 1, 9)),
        probe("pairs that repeat", scene(2, 40, 60, 2, 7)),
    ]
