"""Slots: the operators of the network that can be replaced, each with a reference in plain torch.

All modules of a model share one `Slots` object: `model.slots.conv2d = other` replaces every convolution.
A slot holds any callable with the signature of its reference. A new model starts with the implementations
in fast/. Proofs compare every implementation with the references in this file. No function here depends on
the device.

An implementation that has more to declare than a function is an `Operator`.

Letters used for shapes in all of `model/`:
    b batch   n tokens   d width   h heads   k head dim   e experts   s side of a square map   c channels
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .choose import choose
from .decode_layer import Experts, decode_layer


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
    """Replace the rows of embeds (b, n, d) where mask (b, n) is True by source (m, d), in row-major order.

    The mask may be on the host. Counting its True values then needs no synchronisation.

    Raises:
        RuntimeError: source has too few rows or another dtype (raised by torch).
        ValueError: source has too many rows.
    """
    if (rows := int(mask.sum())) < len(source):
        raise ValueError(f"place_images: {len(source)} image rows for {rows} places in the text")
    return embeds.masked_scatter(mask[..., None].to(embeds.device), source)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention. q, k, v (b, h, n, k); mask bool (True: attend) or None."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def rel_pos_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """Attention over a square map with decomposed relative positions (SAM).

    q, k, v (b, h, s*s, k). rel_h and rel_w (s, s, k) hold the embedding of [query row, key row] and of
    [query column, key column]. The bias uses the unscaled query, as in SAM.
    """
    b, h, n, k_ = q.shape
    s = rel_h.shape[0]
    grid = q.view(b, h, s, s, k_)
    bias_h = torch.einsum("bhijk,ixk->bhijx", grid, rel_h).contiguous()  # makes the sum contiguous too
    bias_w = torch.einsum("bhijk,jyk->bhijy", grid, rel_w).contiguous()
    bias = (bias_h[..., :, None] + bias_w[..., None, :]).view(b, h, n, n)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def sam_attention(qkv: Tensor, bias: Tensor, rel_h: Tensor, rel_w: Tensor, heads: int, window: int) -> Tensor:
    """SAM's attention inside the windows of a map -> (b, s, s, d), before the output projection.

    qkv (b, s, s, 3d) = [q | k | v], each of `heads` heads; rel_h and rel_w (2l-1, k) as stored, see
    relative_table; window: the side of a window, 0 for the whole map. Windows that reach beyond the map see
    keys and values there: the map is padded with zeros before the product for q, k and v, so that they are
    its bias (3d).
    """
    b, s, _, d3 = qkv.shape
    side = window or s
    count = -(-s // side)
    if count * side > s:
        inside = qkv
        qkv = bias.expand(b, count * side, count * side, d3).contiguous()
        qkv[:, :s, :s] = inside
    windows = qkv.view(b, count, side, count, side, d3).transpose(2, 3)
    q, k, v = windows.reshape(b * count**2, side**2, 3, heads, -1).permute(2, 0, 3, 1, 4)  # each b h n k
    out = rel_pos_attention(q, k, v, relative_table(rel_h, side), relative_table(rel_w, side))
    out = out.transpose(1, 2).reshape(b, count, count, side, side, d3 // 3).transpose(2, 3)
    return out.reshape(b, count * side, count * side, d3 // 3)[:, :s, :s]


def moe(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum over the chosen experts -> (n, d).

    x (n, d), gate_up (e, 2i, d), down (e, d, i), ids and weights (n, top). Runs one expert after another, as
    the original does. The host waits once for the set of chosen experts and once per expert for its rows.
    Accumulates in fp32 and rounds once, as the original does.
    """
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in ids.unique().tolist():
        token, slot = (ids == expert).nonzero(as_tuple=True)
        y = F.linear(swiglu(F.linear(x[token], gate_up[expert])), down[expert])
        out = out.index_add(0, token, y.float() * weights[token, slot, None].float())
    return out.to(x.dtype)


def mixture(x: Tensor, experts: Experts) -> Tensor:
    """Router, chosen experts and shared experts for the tokens of a prompt: x (n, d), normed -> (n, d).

    The router computes in fp32. A softmax over all experts gives the shares, of which the largest are taken.
    """
    e = experts
    weights, ids = F.linear(x.float(), e.gate.float()).softmax(-1).topk(e.top, dim=-1)
    if e.renormalise:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    shared = F.linear(swiglu(F.linear(x, e.shared_gate_up)), e.shared_down)
    return moe(x, e.gate_up, e.down, ids, weights * e.scale) + shared


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / rms(x) in fp32, rounded to x's dtype, then times weight. x (..., d)."""
    x32 = x.float()
    return weight * (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def add_rms_norm(x: Tensor, other: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x + other, its RMS norm). x and other (..., d), weight (d)."""
    total = x + other
    return total, rms_norm(total, weight, eps)


def add_layer_norm(
    x: Tensor, other: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + other, its layer norm). x and other (..., d), weight and bias (d)."""
    total = x + other
    return total, F.layer_norm(total, weight.shape, weight, bias, eps)


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + k/2) of x (b, h, n, k): the half-split layout. cos, sin (b, 1, n, k)."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * up for x (..., 2i) = [gate | up] -> (..., i)."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def gelu(x: Tensor) -> Tensor:
    """The exact GELU (erf), with which SAM was trained. The tanh form differs by up to 5e-4."""
    return F.gelu(x, approximate="none")


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), with which CLIP was trained."""
    return x * torch.sigmoid(1.702 * x)


def resize_grid(table: Tensor, side: int) -> Tensor:
    """Resize a position table (1, s, s, d) -> (1, side, side, d).

    Bicubic with antialiasing in fp32, as the original does.
    """
    if table.shape[1] == side:
        return table
    resized = F.interpolate(
        table.permute(0, 3, 1, 2).float(), (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.permute(0, 2, 3, 1).to(table.dtype)


def relative_table(table: Tensor, side: int) -> Tensor:
    """Expand a relative position table (2s-1, k) -> (side, side, k), indexed by [query, key].

    A table of another length is interpolated linearly in fp32 first.
    """
    length = 2 * side - 1
    if table.shape[0] != length:
        resized = F.interpolate(table.float().T[None], length, mode="linear", align_corners=False)
        table = resized[0].T.to(table.dtype)
    at = torch.arange(side, device=table.device)
    return table[at[:, None] - at[None, :] + side - 1]


@dataclass(frozen=True, eq=False)
class Operator:
    """An implementation of a slot: a function, and what its users may need to know about it.

    An Operator is called like its function. It is immutable and compares by identity, as a function does;
    copies of a model share it.

    Args:
        function: the implementation.
        supports: takes the arguments of `function`; False if the function would delegate this call to another
            implementation. None: it computes every call itself.
        prepare: does part of the work once per generation instead of once per token, see fast/step.py.
            For rms_norm, prepare(weight, eps) returns a function of x (n, d).
            For moe, prepare(mlp, batch) returns a function of (residual, x, ids, weights) that adds the
            chosen and the shared experts of a decoder.MoE to `residual` (b, d); or None if it cannot.
        name: the name in plans and reports; by default the name of the function.
    """

    function: Callable
    supports: Callable[..., bool] | None = None
    prepare: Callable | None = None
    name: str = ""

    def __post_init__(self):
        function = self.function
        name = self.name or function.__name__
        # What tools read from a function: inspect, bench/stamp.py. Written directly because of frozen=True.
        vars(self).update(
            name=name,
            __name__=name,
            __qualname__=function.__qualname__,
            __module__=function.__module__,
            __doc__=function.__doc__,
            __wrapped__=function,
        )

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self.__qualname__  # type: ignore[attr-defined]  # pickled and copied by reference, as functions are


def operator(supports: Callable[..., bool] | None = None, prepare: Callable | None = None) -> Callable:
    """Decorator that makes an `Operator` of a function."""
    return lambda function: Operator(function, supports, prepare)


#: Slots that span others. As long as they hold their references, the network takes the other slots instead,
#: so a wrapper around such a reference would change what runs.
SPANNING = ("decode_layer", "choose", "add_layer_norm", "add_rms_norm", "sam_attention", "mixture")


@dataclass
class Slots:
    """One implementation per slot; the defaults are the references above."""

    conv2d: Callable = conv2d
    place_images: Callable = place_images
    attention: Callable = attention
    rel_pos_attention: Callable = rel_pos_attention
    sam_attention: Callable = sam_attention
    moe: Callable = moe
    mixture: Callable = mixture
    rms_norm: Callable = rms_norm
    add_rms_norm: Callable = add_rms_norm
    add_layer_norm: Callable = add_layer_norm
    rotary: Callable = rotary
    swiglu: Callable = swiglu
    gelu: Callable = gelu
    quick_gelu: Callable = quick_gelu
    resize_grid: Callable = resize_grid
    relative_table: Callable = relative_table
    decode_layer: Callable = decode_layer
    choose: Callable = choose
