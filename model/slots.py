"""The named places of the network where an implementation may be exchanged, with their reference in plain
torch.

A `Slots` object is shared by all modules of one model: `model.slots.conv2d = other` changes every
convolution. What a model starts with is in fast/: the functions here are what proofs compare with.
Nothing here asks which device it runs on; whoever exchanges a function knows.

An implementation may do part of its work once per reading instead of once per token, see fast/step.py:
    rms_norm.prepared(weight, eps)   -> a function of x (n, d)
    moe.prepared(mlp, batch)         -> a function of (onto, x, ids, weights) that adds the chosen and the
                                        shared experts of a decoder.MoE to `onto` (b, d); None: as without it

Letters used for shapes in all of `model/`:
    b batch   n tokens   d width   h heads   k head dim   e experts   s side of a square map   c channels
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """x (b, c, H, W), weight (o, c / groups, kh, kw) -> (b, o, H', W')."""
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def place_images(embeds: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """Replace, in row-major order, the rows of embeds (b, n, d) where mask (b, n) is True by source (m, d).

    The mask may lie on the host: then counting it makes nobody wait. Raises RuntimeError (from torch) if
    source has too few rows or another dtype, ValueError if it has too many rows.
    """
    if (rows := int(mask.sum())) < len(source):
        raise ValueError(f"place_images: {len(source)} image rows for {rows} places in the text")
    return embeds.masked_scatter(mask[..., None].to(embeds.device), source)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention. q, k, v (b, h, n, k); mask bool, True = may look, or None."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def rel_pos_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention over a square map with decomposed relative positions (SAM).

    q, k, v (b, h, s*s, k); rel_h, rel_w (s, s, k) hold the embedding of [query row, key row] and [.. column].
    The bias uses the query before it is scaled, as in SAM.
    """
    b, h, n, k_ = q.shape
    s = rel_h.shape[0]
    grid = q.view(b, h, s, s, k_)
    bias_h = torch.einsum("bhijk,ixk->bhijx", grid, rel_h).contiguous()  # so that their sum is contiguous too
    bias_w = torch.einsum("bhijk,jyk->bhijy", grid, rel_w).contiguous()
    bias = (bias_h[..., :, None] + bias_w[..., None, :]).view(b, h, n, n)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def moe(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Sum over the chosen experts: x (n, d), gate_up (e, 2i, d), down (e, d, i), ids and weights (n, top) ->
    (n, d).

    One expert after the other, as the original: simple. Waits for the set of experts, and for the rows of
    each.
    Sums in fp32 and rounds once, as the original.
    """
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in ids.unique().tolist():
        token, slot = (ids == expert).nonzero(as_tuple=True)
        y = F.linear(swiglu(F.linear(x[token], gate_up[expert])), down[expert])
        out = out.index_add(0, token, y.float() * weights[token, slot, None].float())
    return out.to(x.dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) in fp32, rounded to x's dtype, then times weight. x (..., d)."""
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + k/2) of x (b, h, n, k) by the angles in cos, sin (b, 1, n, k): half-split
    layout.
    """
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up for x (..., 2i) = [gate | up] -> (..., i)."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu(x: Tensor) -> Tensor:
    """The exact gelu (erf), as SAM was trained with; the tanh form differs by up to 5e-4."""
    return F.gelu(x, approximate="none")


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), as CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def resize_grid(table: Tensor, side: int) -> Tensor:
    """Position table (1, s, s, d) -> (1, side, side, d): bicubic, antialiased, in fp32, as the original."""
    if table.shape[1] == side:
        return table
    resized = F.interpolate(
        table.permute(0, 3, 1, 2).float(), (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.permute(0, 2, 3, 1).to(table.dtype)


def relative_table(table: Tensor, side: int) -> Tensor:
    """Relative position table (2s-1, k) -> (side, side, k) by [query, key]; resized linearly if it does not
    fit.
    """
    length = 2 * side - 1
    if table.shape[0] != length:
        resized = F.interpolate(table.float().T[None], length, mode="linear", align_corners=False)
        table = resized[0].T.to(table.dtype)
    at = torch.arange(side, device=table.device)
    return table[at[:, None] - at[None, :] + side - 1]


@dataclass
class Slots:
    """One implementation per place; the defaults are the references above."""

    conv2d: Callable = conv2d
    place_images: Callable = place_images
    attention: Callable = attention
    rel_pos_attention: Callable = rel_pos_attention
    moe: Callable = moe
    rms_norm: Callable = rms_norm
    rotary: Callable = rotary
    swiglu: Callable = swiglu
    gelu: Callable = gelu
    quick_gelu: Callable = quick_gelu
    resize_grid: Callable = resize_grid
    relative_table: Callable = relative_table
