"""Probes of the slots that span others in the encoders and in the pass over a prompt."""

from __future__ import annotations

import torch

from model.decode_layer import Experts
from model.parts import ClipConfig, QueryConfig

from .probe import Probe, Sizes, rand
from .probes_language import queries_of


def add_norms(s: Sizes) -> list[Probe]:
    """A sum with the norm behind it -> (2, …): the sum and its norm."""
    sam, lm, c = s.config.sam, s.config.decoder, s.config.encoder
    grid, places = s.view // sam.patch, (s.view // 64) ** 2

    def both(function, *args):
        return torch.stack(function(*args))

    def probe(slot, name, eps, *shape, real=False, scale=1.0):
        def make(g):
            tables = [1 + rand(g, shape[-1], scale=0.1)]
            if slot == "add_layer_norm":
                tables.append(rand(g, shape[-1], scale=0.1))
            return rand(g, *shape, scale=scale), rand(g, *shape, scale=scale), *tables, eps

        return Probe(slot, name, make, real, call=both)

    layer, rms = "add_layer_norm", "add_rms_norm"
    encoder = []
    if isinstance(c, ClipConfig):
        encoder = [probe(layer, "CLIP", c.eps, 1, places + 1, c.width, real=True)]
    elif isinstance(c, QueryConfig):
        encoder = [probe(rms, "queries", c.eps, 1, places + queries_of(s), c.width, real=True)]
    return [
        *encoder,
        probe(layer, "SAM", sam.eps, 1, grid, grid, sam.width, real=True),
        probe(layer, "an odd width", 1e-5, 3, 7, 37),
        probe(layer, "large values", 1e-5, 2, 96, scale=50.0),
        probe(rms, "prefill", lm.eps, 1, s.prompt, lm.width, real=True),
        probe(rms, "an odd width", 1e-6, 3, 7, 37),
        probe(rms, "large values", 1e-6, 2, 96, scale=50.0),
    ]


def sam_attention(s: Sizes) -> list[Probe]:
    sam = s.config.sam
    grid = s.view // sam.patch

    def scene(b, side, heads, width, window, stored, scale=1.0):
        def make(g):
            qkv = rand(g, b, side, side, 3 * heads * width, scale=scale)
            tables = (rand(g, 2 * stored - 1, width, scale=0.3) for _ in "hw")
            return qkv, rand(g, 3 * heads * width, scale=scale), *tables, heads, window

        return make

    def probe(name, make, real=False):
        wide = torch.float32 if real else torch.float64
        return Probe("sam_attention", name, make, real, wide=wide)

    return [
        probe("windows", scene(1, grid, sam.heads, sam.head_dim, sam.window, sam.window), True),
        probe("whole map, 2 heads", scene(1, grid, 2, sam.head_dim, 0, grid), True),
        probe("windows beyond the map", scene(2, 7, 2, 8, 3, 3)),
        probe("windows that fill the map", scene(1, 6, 1, 16, 3, 3)),
        probe("a window larger than the map", scene(1, 4, 1, 8, 5, 5)),
        probe("an odd map", scene(2, 5, 3, 8, 0, 5)),
        probe("sharp scores", scene(1, 6, 2, 16, 4, 4, scale=3.0)),
    ]


def mixture(s: Sizes) -> list[Probe]:
    """A layer of experts with its router, the chosen experts and the shared ones."""
    lm = s.config.decoder

    def scene(n, width, hidden, experts, shared, top, renormalise=False, scale=1.0):
        def part(g, *shape):
            return rand(g, *shape, scale=shape[-1] ** -0.5)

        def make(g):
            # Scores far apart: a tie would be decided by the dtype.
            gate = rand(g, experts, width, scale=4 * width**-0.5)
            x = rand(g, n, width)
            return (
                x,
                gate,
                part(g, experts, 2 * hidden, width),
                part(g, experts, width, hidden),
                part(g, 2 * shared * hidden, width),
                part(g, width, shared * hidden),
            )

        def call(function, x, gate, gate_up, down, shared_gate_up, shared_down):
            parts = gate, gate_up, down, shared_gate_up, shared_down
            return function(x, Experts(*parts, top, renormalise, scale))

        return make, call

    def probe(name, scene, real=False):
        make, call = scene
        return Probe("mixture", name, make, real, call=call, wide=torch.float32)

    size = (lm.width, lm.expert_hidden, lm.experts, lm.shared_experts, lm.experts_per_token)
    return [
        probe("a prompt", scene(s.prompt, *size), True),
        probe("few tokens", scene(5, 24, 16, 5, 2, 2)),
        probe("many tokens, renormalised", scene(40, 24, 16, 5, 1, 3, True, 1.5)),
    ]
