"""CLIP-L fed by the SAM map: the second encoder of DeepSeek-OCR and Unlimited-OCR.

Shape letters: see slots.py. `s` is the side of the SAM map, pixels / 64.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from .joined import Branch, run_layers
from .parts import ClipConfig
from .slots import Slots


class ClipEmbeddings(nn.Module):
    def __init__(self, c: ClipConfig, slots: Slots):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(c.width))
        # In the checkpoint but unused, because the SAM map replaces the patches. Kept for lossless saving.
        self.patch_embedding = nn.Parameter(torch.empty(c.width, 3, c.patch, c.patch))
        self.position_embedding = nn.Parameter(torch.empty(c.grid**2 + 1, c.width))
        self.grid, self.slots = c.grid, slots

    def forward(self, sam_map: Tensor) -> Tensor:  # (b, d, s, s) -> (b, 1 + s*s, d)
        b, d, s, _ = sam_map.shape
        x = torch.cat((self.class_embedding.expand(b, 1, d), sam_map.flatten(2).transpose(1, 2)), dim=1)
        table = self.slots.resize_grid(self.position_embedding[1:].view(1, self.grid, self.grid, d), s)
        return x + torch.cat((self.position_embedding[:1], table.reshape(s * s, d)))


class ClipAttention(nn.Module):
    def __init__(self, c: ClipConfig, slots: Slots):
        super().__init__()
        self.qkv_proj = nn.Linear(c.width, 3 * c.width)
        self.out_proj = nn.Linear(c.width, c.width)
        self.heads, self.slots = c.heads, slots

    def forward(self, x: Tensor) -> Tensor:  # (b, n, d)
        b, n, d = x.shape
        q, k, v = self.qkv_proj(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each b h n k
        return self.out_proj(self.slots.attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class ClipMlp(nn.Module):
    def __init__(self, c: ClipConfig, slots: Slots):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)
        self.slots = slots

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.slots.quick_gelu(self.fc1(x)))


class ClipLayer(nn.Module):
    def __init__(self, c: ClipConfig, slots: Slots):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c.width, c.eps), nn.LayerNorm(c.width, c.eps)
        self.self_attn, self.mlp = ClipAttention(c, slots), ClipMlp(c, slots)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))

    def branches(self) -> tuple[Branch, Branch]:
        """See joined.py."""
        return (self.layer_norm1, self.self_attn), (self.layer_norm2, self.mlp)


class ClipEncoder(nn.Module):
    """SAM map (b, d, s, s) -> (b, 1 + s*s, d), class token first. No final norm, as in the original."""

    def __init__(self, c: ClipConfig, slots: Slots):
        super().__init__()
        self.embeddings = ClipEmbeddings(c, slots)
        self.pre_layrnorm = nn.LayerNorm(c.width, c.eps)
        self.layers = nn.ModuleList(ClipLayer(c, slots) for _ in range(c.layers))
        self.slots = slots

    def forward(self, sam_map: Tensor) -> Tensor:
        x = self.pre_layrnorm(self.embeddings(sam_map))
        return run_layers(x, self.layers, ClipLayer, self.slots)


def fuse(clip: Tensor, sam_map: Tensor) -> Tensor:
    """Concatenate CLIP tokens (b, 1+s*s, d) without the class token and SAM map (b, c, s, s) by channel.

    -> (b, s*s, d + c)
    """
    return torch.cat((clip[:, 1:], sam_map.flatten(2).transpose(1, 2)), dim=-1)
