"""Probes of the decoder and of the small functions in all layers."""

from __future__ import annotations

import torch

from model.parts import ClipConfig, QueryConfig
from model.query_encoder import reading_mask

from .probe import Probe, Sizes, rand


def attention(s: Sizes) -> list[Probe]:
    lm = s.config.decoder

    def scene(b, heads, nq, nk, width, causal=False, mask=None, slack=0):
        def make(g):
            q = rand(g, b, nq, heads, width).transpose(1, 2)
            kv = rand(g, 2, b, heads, nk + slack, width)[..., :nk, :]  # a slice, like those of the cache
            return q, *kv, mask(g, b, nq, nk) if mask else None, causal

        return make

    def padded(g, b, nq, nk):
        seen = torch.ones(b, 1, nq, nk, dtype=torch.bool).tril(nk - nq)
        seen[0, ..., : nk // 3] = False  # the first sample is padded on the left
        seen[0, 0] |= torch.eye(nq, nk, dtype=torch.bool)
        return seen

    def visible(g, b, nq, nk):
        mask = torch.rand(b, 1, 1, nk, generator=g) < 0.7
        mask[..., -1] = True
        return mask

    def probe(name, make, real=False):
        return Probe("attention", name, make, real, wide=torch.float32 if real else torch.float64)

    return [
        *encoder_attention(s, probe, scene),
        probe("prefill", scene(1, lm.heads, s.prompt, s.prompt, lm.head_dim, causal=True), True),
        probe("decode", scene(1, lm.heads, 1, s.prompt + 100, lm.head_dim, slack=50), True),
        probe("batch of padded prompts", scene(2, 3, 21, 21, 16, mask=padded)),
        probe("decode past 512 keys with a mask", scene(2, 3, 1, 700, 16, mask=visible)),
        probe("causal, more keys than queries", scene(1, 2, 4, 9, 16, causal=True)),
    ]


def encoder_attention(s: Sizes, probe, scene) -> list[Probe]:
    """The attention of the encoder behind SAM."""
    c, places = s.config.encoder, (s.view // 64) ** 2
    if isinstance(c, ClipConfig):
        return [probe("CLIP", scene(1, c.heads, places + 1, places + 1, c.head_dim), True)]
    if not isinstance(c, QueryConfig):
        return []
    n = places + queries_of(s)

    def shared(g):
        """Heads share keys and values. Queries see the map, and queries up to themselves."""
        q = rand(g, 1, n, c.heads, c.head_dim).transpose(1, 2)
        kv = rand(g, 2, 1, c.kv_heads, n, c.head_dim).repeat_interleave(c.heads // c.kv_heads, 2)
        return q, *kv, reading_mask(places, n - places, q.device), False

    return [probe("queries, shared keys", shared, True)]


def queries_of(s: Sizes) -> int:
    """Learned queries of the view that is probed."""
    return next(
        (n for n in s.config.encoder.queries if (s.view // 64) ** 2 <= n), s.config.encoder.queries[-1]
    )


def moe(s: Sizes) -> list[Probe]:
    lm = s.config.decoder

    def scene(n, experts, top, width, hidden, unused=0):
        def make(g):
            scores = torch.rand(n, experts - unused, generator=g)
            weights, ids = scores.softmax(-1).topk(top)
            gate_up = rand(g, experts, 2 * hidden, width, scale=width**-0.5)
            return (
                rand(g, n, width),
                gate_up,
                rand(g, experts, width, hidden, scale=hidden**-0.5),
                ids,
                weights,
            )

        return make

    def all_to_one(g):
        x, gate_up, down, ids, weights = scene(12, 4, 2, 16, 8)(g)
        ids[:, 0], ids[:, 1] = 2, 0
        return x, gate_up, down, ids, weights

    size = (lm.experts, lm.experts_per_token, lm.width, lm.expert_hidden)

    def probe(name, make, real=False):
        return Probe("moe", name, make, real, call=_fp32_weights, wide=torch.float32)

    return [
        probe("one token", scene(1, *size), True),
        probe("eight tokens", scene(8, *size), True),
        probe("a prompt", scene(s.prompt, *size), True),
        probe("everyone to the same two experts", all_to_one),
        probe("experts that nobody chose", scene(5, 9, 3, 24, 16, unused=5)),
    ]


def _fp32_weights(function, x, gate_up, down, ids, weights):
    """The router's weights are fp32 for every dtype."""
    return function(x, gate_up, down, ids, weights.float())


def elementwise(s: Sizes) -> list[Probe]:
    sam, lm = s.config.sam, s.config.decoder
    grid = s.view // sam.patch

    def angles(g, b, n, k):
        half = torch.rand(b, 1, n, k // 2, generator=g) * 6.3
        half = torch.cat((half, half), -1)
        return half.cos(), half.sin()

    def norm(n, scale=1.0):
        return lambda g: (rand(g, 1, n, lm.width, scale=scale), 1 + rand(g, lm.width, scale=0.1), lm.eps)

    def rotated(n):
        return lambda g: (
            rand(g, 1, n, lm.heads, lm.head_dim).transpose(1, 2), *angles(g, 1, n, lm.head_dim),
        )  # fmt: skip

    def one(*shape, scale=2.0):
        return lambda g: (rand(g, *shape, scale=scale),)

    return [
        *encoder_elementwise(s, angles),
        Probe("rms_norm", "prefill", norm(s.prompt), True),
        Probe("rms_norm", "decode", norm(1), True),
        Probe("rms_norm", "large values", norm(3, scale=100.0)),
        Probe("rotary", "prefill", rotated(s.prompt), True),
        Probe("rotary", "decode", rotated(1), True),
        Probe("rotary", "angles per sample", lambda g: (rand(g, 3, 2, 5, 8), *angles(g, 3, 5, 8))),
        Probe("swiglu", "dense layer, prefill", one(1, s.prompt, 2 * lm.dense_hidden), True),
        Probe("swiglu", "one expert, decode", one(1, 2 * lm.expert_hidden), True),
        Probe("swiglu", "slices", lambda g: (rand(g, 4, 64)[:, ::2],)),
        Probe("gelu", "SAM", one(1, grid, grid, sam.hidden), True),
        Probe("gelu", "where tanh differs most", lambda g: (torch.linspace(-3, 3, 4001),)),
        Probe("quick_gelu", "far out", one(500, scale=20.0)),
        Probe("quick_gelu", "near the end of fp16", lambda g: (torch.tensor([6e4, 5e4, -6e4, 1.0]),)),
    ]


def encoder_elementwise(s: Sizes, angles) -> list[Probe]:
    """The small functions of the encoder behind SAM."""
    c, places = s.config.encoder, (s.view // 64) ** 2
    if isinstance(c, ClipConfig):
        return [Probe("quick_gelu", "CLIP", lambda g: (rand(g, 1, places + 1, c.hidden, scale=2.0),), True)]
    if not isinstance(c, QueryConfig):
        return []
    n, rotated = places + queries_of(s), c.heads + c.kv_heads

    def rotary(g):
        return rand(g, 1, n, rotated, c.head_dim).transpose(1, 2), *angles(g, 1, n, c.head_dim)

    return [
        Probe(
            "rms_norm",
            "queries",
            lambda g: (rand(g, 1, n, c.width), 1 + rand(g, c.width, scale=0.1), c.eps),
            True,
        ),
        Probe("rotary", "queries", rotary, True),
        Probe("swiglu", "queries", lambda g: (rand(g, 1, n, 2 * c.hidden, scale=2.0),), True),
    ]
