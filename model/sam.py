"""SAM ViT-B, the first encoder of every model of the family.

Shape letters: see slots.py. `s` is the side of a square map: pixels / 16 inside SAM, pixels / 64 after it.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .joined import Branch, run_layers, untouched
from .parts import SamConfig
from .slots import Slots, sam_attention


def to_windows(x: Tensor, window: int) -> Tensor:
    """(b, s, s, d) -> (b * windows, window, window, d), row-major, zero-padded at the right and below."""
    b, s, _, d = x.shape
    pad = -s % window
    x = F.pad(x, (0, 0, 0, pad, 0, pad))
    count = (s + pad) // window
    x = x.view(b, count, window, count, window, d).transpose(2, 3)
    return x.reshape(b * count * count, window, window, d)


def from_windows(x: Tensor, side: int) -> Tensor:
    """The inverse of `to_windows`, without the padding -> (b, side, side, d)."""
    window, d = x.shape[1], x.shape[-1]
    count = -(-side // window)
    x = x.view(-1, count, count, window, window, d).transpose(2, 3)
    return x.reshape(-1, count * window, count * window, d)[:, :side, :side]


class Conv2d(nn.Module):
    """A convolution whose implementation is a slot."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int, padding: int, bias: bool, slots: Slots
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(c_out)) if bias else None
        self.stride, self.padding, self.slots = stride, padding, slots

    def forward(self, x: Tensor) -> Tensor:  # (b, c, H, W) -> (b, o, H', W')
        return self.slots.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel (NCHW), in the dtype of the activations as the original."""

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (b, c, s, s)
        return F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps
        ).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    def __init__(self, c: SamConfig, slots: Slots):
        super().__init__()
        self.proj = Conv2d(3, c.width, c.patch, c.patch, 0, True, slots)

    def forward(self, pixels: Tensor) -> Tensor:  # (b, 3, S, S) -> (b, s, s, d)
        return self.proj(pixels).permute(0, 2, 3, 1)


class SamAttention(nn.Module):
    def __init__(self, c: SamConfig, side: int, slots: Slots):
        super().__init__()
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.proj = nn.Linear(c.width, c.width)
        self.rel_pos_h = nn.Parameter(torch.empty(2 * side - 1, c.head_dim))
        self.rel_pos_w = nn.Parameter(torch.empty(2 * side - 1, c.head_dim))
        self.heads, self.slots = c.heads, slots

    def forward(self, x: Tensor) -> Tensor:  # (b, s, s, d), square
        b, s, _, d = x.shape
        q, k, v = self.qkv(x).view(b, s * s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each b h n k
        tables = self.slots.relative_table
        rel_h, rel_w = tables(self.rel_pos_h, s), tables(self.rel_pos_w, s)
        x = self.slots.rel_pos_attention(q, k, v, rel_h, rel_w)
        return self.proj(x.transpose(1, 2).reshape(b, s, s, d))

    def spans(self) -> bool:
        """Whether the slot `sam_attention` computes the windows, see slots.SPANNING."""
        replaced = self.slots.sam_attention is not sam_attention
        return replaced and untouched(self.modules(), {SamAttention, nn.Linear}, self.slots)

    def in_windows(self, x: Tensor, window: int) -> Tensor:
        """`forward` on each window of a map (b, s, s, d) -> (b, s, s, d). window 0: the whole map."""
        attend = self.slots.sam_attention
        qkv = self.qkv(x)
        return self.proj(attend(qkv, self.qkv.bias, self.rel_pos_h, self.rel_pos_w, self.heads, window))


class SamMlp(nn.Module):
    def __init__(self, c: SamConfig, slots: Slots):
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)
        self.slots = slots

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.slots.gelu(self.lin1(x)))


class SamBlock(nn.Module):
    def __init__(self, c: SamConfig, window: int, slots: Slots):
        """window 0 means global attention."""
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.width, c.eps), nn.LayerNorm(c.width, c.eps)
        self.attn = SamAttention(c, window or c.grid, slots)
        self.mlp = SamMlp(c, slots)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:  # (b, s, s, d)
        x = x + self.attend(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attend(self, y: Tensor) -> Tensor:
        if self.attn.spans():
            return self.attn.in_windows(y, self.window)
        if self.window:
            # The padding is added after the norm and not masked: its q, k and v are the bias of qkv.
            return from_windows(self.attn(to_windows(y, self.window)), y.shape[1])
        return self.attn(y)

    def branches(self) -> tuple[Branch, Branch]:
        """See joined.py."""
        return (self.norm1, self.attend), (self.norm2, self.mlp)


class SamEncoder(nn.Module):
    """pixels (b, 3, S, S) -> map (b, c, S/64, S/64). No norm or activation after the neck."""

    def __init__(self, c: SamConfig, slots: Slots):
        super().__init__()
        self.slots = slots
        self.patch_embed = PatchEmbed(c, slots)
        self.pos_embed = nn.Parameter(torch.empty(1, c.grid, c.grid, c.width))
        self.blocks = nn.ModuleList(
            SamBlock(c, 0 if i in c.global_blocks else c.window, slots) for i in range(c.layers)
        )
        self.neck = nn.Sequential(
            Conv2d(c.width, c.neck, 1, 1, 0, False, slots),
            LayerNorm2d(c.neck, c.eps),
            Conv2d(c.neck, c.neck, 3, 1, 1, False, slots),
            LayerNorm2d(c.neck, c.eps),
        )
        self.net_2 = Conv2d(c.neck, c.downsample_channels[0], 3, 2, 1, False, slots)
        self.net_3 = Conv2d(c.downsample_channels[0], c.downsample_channels[1], 3, 2, 1, False, slots)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed(pixels)
        x = x + self.slots.resize_grid(self.pos_embed, x.shape[1])
        x = run_layers(x, self.blocks, SamBlock, self.slots)
        return self.net_3(self.net_2(self.neck(x.permute(0, 3, 1, 2))))
