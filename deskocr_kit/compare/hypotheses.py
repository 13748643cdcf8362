"""Common mistakes in operators, tried on recorded inputs: a match names the fault.

Each is a function of the slot's arguments that computes the result of the faulty implementation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from model import slots

from .metrics import tensors, worst


def _interleaved(x, cos, sin):
    half = x.shape[-1] // 2
    cos, sin = (t[..., :half].repeat_interleave(2, -1) for t in (cos, sin))
    pairs = torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    return x * cos + pairs * sin


def _interleaved_same_tables(x, cos, sin):
    return x * cos + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * sin


def _regrouped(x, cos, sin):
    """Pairs (2i, 2i+1) are first regrouped into halves, as checkpoints with the other layout need."""
    x = torch.cat((x[..., ::2], x[..., 1::2]), -1)
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


def _backwards(x, cos, sin):
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((right, -left), -1) * sin


def _shifted(steps: int):
    def attempt(x, cos, sin):
        left, right = x.chunk(2, -1)
        cos, sin = torch.roll(cos, steps, -2), torch.roll(sin, steps, -2)
        return x * cos + torch.cat((-right, left), -1) * sin

    return attempt


def _unfold_by_position(x, weight, bias, stride=1, padding=0):
    """F.unfold(x, k, padding, stride), whose third parameter is dilation and whose fourth is padding."""
    columns = F.unfold(x, weight.shape[-2:], padding, stride)
    out = torch.einsum("oi,bil->bol", weight.flatten(1), columns)
    out = out if bias is None else out + bias[:, None]
    side = (x.shape[-1] + 2 * padding - weight.shape[-1]) // stride + 1
    return out.view(len(x), -1, side, out.shape[-1] // side) if out.shape[-1] % side == 0 else out


def _dilated(x, weight, bias, stride=1, padding=0):
    return F.conv2d(x, weight, bias, stride=stride, dilation=max(padding, 1))


def _attention(scale=None, mask=lambda m: m, causal=lambda c: c):
    def attempt(q, k, v, given=None, is_causal=False):
        given, is_causal = mask(given) if given is not None else None, causal(is_causal)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=given, is_causal=is_causal, scale=scale)

    return attempt


def _off_by(steps: int):
    """A causal mask that ends `steps` keys after the query."""

    def attempt(q, k, v, given=None, is_causal=False):
        if not is_causal:
            raise ValueError("this mistake needs a causal mask")
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril(steps)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    return attempt


def _resized(mode="bicubic", antialias=True, corners=False):
    def attempt(table, side):
        picture = table.permute(0, 3, 1, 2)
        resized = F.interpolate(picture, (side, side), mode=mode, antialias=antialias, align_corners=corners)
        return resized.permute(0, 2, 3, 1)

    return attempt


def _rel_pos(q, k, v, rel_h, rel_w, query=lambda q: q, swap=False, bias=True):
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    rel_h, rel_w = (rel_w, rel_h) if swap else (rel_h, rel_w)
    grid = query(q).reshape(b, h, s, s, d)
    rows = torch.einsum("bhijk,ixk->bhijx", grid, rel_h)[..., :, None]
    columns = torch.einsum("bhijk,jyk->bhijy", grid, rel_w)[..., None, :]
    mask = (rows + columns).reshape(b, h, n, n) if bias else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _swiglu_swapped(x):
    gate, up = x.chunk(2, -1)
    return gate * F.silu(up)


def _swiglu_interleaved(x):
    return F.silu(x[..., ::2]) * x[..., 1::2]


HYPOTHESES: dict[str, dict[str, Callable]] = {
    "gelu": {
        "the tanh formula in place of erf": lambda x: F.gelu(x, approximate="tanh"),
        "quick gelu in place of gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "silu in place of gelu": F.silu,
        "relu in place of gelu": F.relu,
    },
    "quick_gelu": {
        "gelu in place of quick gelu": F.gelu,
        "the tanh formula in place of quick gelu": lambda x: F.gelu(x, approximate="tanh"),
        "silu in place of quick gelu: the factor 1.702 is missing": F.silu,
    },
    "rotary": {
        "rope layout: interleaved pairs (2i, 2i+1) in place of halves (i, i + k/2)": _interleaved,
        "rope layout: interleaved pairs, angles of the half-split layout": _interleaved_same_tables,
        "rope layout: interleaved pairs regrouped into halves": _regrouped,
        "rotated backwards: sign of sin": _backwards,
        "not rotated": lambda x, cos, sin: x,
        "angles one position late": _shifted(1),
        "angles one position early": _shifted(-1),
    },
    "conv2d": {
        "padding passed as dilation: F.unfold's arguments by position": _unfold_by_position,
        "padding passed as dilation": _dilated,
        "bias missing": lambda x, w, b, stride=1, padding=0: F.conv2d(x, w, None, stride, padding),
        "padding missing": lambda x, w, b, stride=1, padding=0: F.conv2d(x, w, b, stride),
        "kernel flipped": lambda x, w, b, stride=1, padding=0: F.conv2d(
            x, w.flip(-1, -2), b, stride, padding
        ),
        "rows and columns exchanged": lambda x, w, b, stride=1, padding=0: F.conv2d(
            x, w.mT, b, stride, padding
        ),
    },
    "place_images": {
        "returns its input unchanged: the scatter wrote into a copy": lambda e, m, s: e,
    },
    "attention": {
        "scale missing": _attention(scale=1.0),
        'mask polarity: True interpreted as "masked"': _attention(mask=lambda m: ~m),
        "mask ignored": lambda q, k, v, mask=None, causal=False: F.scaled_dot_product_attention(q, k, v),
        "causal mask, expected none": _attention(causal=lambda c: True),
        "causal mask off by one: a query sees the token after it": _off_by(1),
        "causal mask off by one: a query does not see itself": _off_by(-1),
        "queries and keys exchanged": lambda q, k, v, mask=None, causal=False: F.scaled_dot_product_attention(
            k, q, v, attn_mask=mask, is_causal=causal
        ),
    },
    "rel_pos_attention": {
        "bias missing": lambda q, k, v, h, w: _rel_pos(q, k, v, h, w, bias=False),
        "bias of the scaled query": lambda q, k, v, h, w: _rel_pos(
            q, k, v, h, w, query=lambda q: q * q.shape[-1] ** -0.5
        ),
        "rows and columns of the bias exchanged": lambda q, k, v, h, w: _rel_pos(q, k, v, h, w, swap=True),
    },
    "rms_norm": {
        "eps missing": lambda x, w, eps: w * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
        "mean subtracted: a layer norm": lambda x, w, eps: F.layer_norm(x, x.shape[-1:], w, None, eps),
        "weight missing": lambda x, w, eps: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps),
        "1 added to the weight": lambda x, w, eps: (
            (1 + w) * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        ),
        "sum in place of mean": lambda x, w, eps: w * x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps),
    },
    "swiglu": {
        "gate and up exchanged": _swiglu_swapped,
        "gate and up read as interleaved": _swiglu_interleaved,
    },
    "moe": {
        "gate and up exchanged": lambda x, gate_up, *rest: slots.moe(
            x, gate_up.roll(gate_up.shape[1] // 2, 1), *rest
        ),
        "weights of the experts ignored": lambda x, gu, down, ids, w: slots.moe(x, gu, down, ids, w * 0 + 1),
        "weights renormalised": lambda x, gu, down, ids, w: slots.moe(
            x, gu, down, ids, w / w.sum(-1, keepdim=True)
        ),
        "the last expert of each token is missing": lambda x, gu, down, ids, w: slots.moe(
            x, gu, down, ids[:, :-1], w[:, :-1]
        ),
        "only the first expert of each token": lambda x, gu, down, ids, w: slots.moe(
            x, gu, down, ids[:, :1], w[:, :1]
        ),
    },
    "resize_grid": {
        "antialias missing": _resized(antialias=False),
        "corners aligned": _resized(corners=True),
        "bilinear in place of bicubic": _resized(mode="bilinear"),
        "rows and columns exchanged": lambda table, side: slots.resize_grid(table, side).transpose(1, 2),
    },
    "relative_table": {
        "query and key exchanged": lambda table, side: slots.relative_table(table, side).transpose(0, 1),
        "table in reverse order": lambda table, side: slots.relative_table(table.flip(0), side),
    },
}


def guess(slot: str, args: tuple, kwargs: dict, output, budget: float) -> str:
    """The known mistake whose result equals `output`, or "". Arguments are in fp32 on the CPU."""
    for words, mistake in HYPOTHESES.get(slot, {}).items():
        try:
            attempt = mistake(*args, **kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            continue  # this mistake cannot be made on these shapes
        if worst(output, attempt).ok(budget):
            return words
    first = next(tensors(args), None)
    if isinstance(output, torch.Tensor) and first is not None and output.shape == first.shape:
        if torch.equal(output.float(), first.float()):
            return "returns its input unchanged"
        if torch.count_nonzero(output) == 0:
            return "returns zeros"
    return ""
