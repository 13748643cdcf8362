"""The second encoder of DeepSeek-OCR-2: Qwen2 blocks that turn the SAM map into learned queries.

The sequence is the map row by row, then the queries. Places of the map see the whole map; query i sees the
map and the queries up to i. So the queries can put the page into reading order. Only they are kept.

Shape letters: see slots.py. `g` heads that share one key-value head.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from .decoder import DenseMLP, RMSNorm, rotary_tables
from .joined import Branch, run_layers_and_norm
from .parts import QueryConfig
from .slots import Slots


def reading_mask(places: int, queries: int, device: torch.device) -> Tensor:
    """Bool (1, 1, n, n), True: attend. n = places of the map + queries.

    Token i sees every token up to max(i, last place). One comparison of index tables, where the original
    fills the mask query by query.
    """
    at = torch.arange(places + queries, device=device)
    return (at[None] <= at.clamp(min=places - 1)[:, None])[None, None]


class QueryAttention(nn.Module):
    """Attention in which several heads share a key and a value (grouped-query attention)."""

    def __init__(self, c: QueryConfig, slots: Slots):
        super().__init__()
        self.qkv_proj = nn.Linear(c.width, (c.heads + 2 * c.kv_heads) * c.head_dim)
        self.o_proj = nn.Linear(c.width, c.width, bias=False)
        self.heads, self.kv_heads, self.slots = c.heads, c.kv_heads, slots

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:  # (b, n, d)
        b, n, d = x.shape
        h, kv = self.heads, self.kv_heads
        qkv = self.qkv_proj(x).view(b, n, h + 2 * kv, -1).transpose(1, 2)  # b h+2kv n k
        qk, v = qkv.split((h + kv, kv), dim=1)
        q, k = self.slots.rotary(qk, *rope).split((h, kv), dim=1)
        # The slot takes as many keys as queries. Repeating them costs little beside the products.
        k, v = (t[:, :, None].expand(b, kv, h // kv, n, -1).reshape(b, h, n, -1) for t in (k, v))
        return self.o_proj(self.slots.attention(q, k, v, mask).transpose(1, 2).reshape(b, n, d))


class QueryLayer(nn.Module):
    def __init__(self, c: QueryConfig, slots: Slots):
        super().__init__()
        self.input_layernorm = RMSNorm(c.width, c.eps, slots)
        self.self_attn = QueryAttention(c, slots)
        self.post_attention_layernorm = RMSNorm(c.width, c.eps, slots)
        self.mlp = DenseMLP(c.width, c.hidden, slots)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))

    def branches(self, rope: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Branch, Branch]:
        """See joined.py."""

        def attend(y: Tensor) -> Tensor:
            return self.self_attn(y, rope, mask)

        return (self.input_layernorm, attend), (self.post_attention_layernorm, self.mlp)


class QueryEncoder(nn.Module):
    """SAM map (b, d, s, s) -> the outputs of the queries (b, queries, d)."""

    def __init__(self, c: QueryConfig, slots: Slots):
        super().__init__()
        small, large = c.queries
        self.query_768 = nn.Embedding(small, c.width)  # named after the side of the view in pixels
        self.query_1024 = nn.Embedding(large, c.width)
        self.layers = nn.ModuleList(QueryLayer(c, slots) for _ in range(c.layers))
        self.norm = RMSNorm(c.width, c.eps, slots)
        self.head_dim, self.theta, self.slots = c.head_dim, c.rope_theta, slots

    def forward(self, sam_map: Tensor) -> Tensor:
        b, _, s, _ = sam_map.shape
        places = s * s
        small, large = self.query_768.weight, self.query_1024.weight
        queries = small if places <= len(small) else large
        x = torch.cat((sam_map.flatten(2).transpose(1, 2), queries.expand(b, -1, -1)), dim=1)
        positions = torch.arange(x.shape[1], device=x.device)[None]
        rope = rotary_tables(positions, self.head_dim, self.theta, x.dtype)
        mask = reading_mask(places, len(queries), x.device)
        kinds, kept = (QueryLayer, RMSNorm), slice(places, None)
        return run_layers_and_norm(x, self.layers, kinds, self.slots, self.norm, kept, (rope, mask))
