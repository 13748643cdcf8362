"""Attention of one query per head to a cache, with a running softmax: the scores are never stored.

Also the kernel of a whole decode step: it rotates q and k, writes k and v to the cache, and attends.
"""

from __future__ import annotations

from torch import Tensor

from .language import tl, triton
from .launch import launch, power_of_two
from .sizes import KEYS


@triton.jit
def decode_attention_kernel(
    q,
    k,
    v,
    mask,
    out,
    heads,
    keys,
    width,
    scale,
    qb,
    qh,
    kb,
    kh,
    kn,
    vb,
    vh,
    vn,
    mb,
    mh,
    mn,
    MASKED: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    b, h = tl.program_id(0) // heads, tl.program_id(0) % heads
    at = tl.arange(0, BLOCK)
    inside = at < width
    query = tl.load(q + b * qb + h * qh + at, mask=inside, other=0.0).to(tl.float32) * scale
    largest = -float("inf")
    total = 0.0
    result = tl.zeros((BLOCK,), dtype=tl.float32)
    for start in range(0, keys, STEP):
        key = start + tl.arange(0, STEP)
        seen = key < keys
        here = seen[:, None] & inside[None, :]
        if MASKED:
            seen = seen & (tl.load(mask + b * mb + h * mh + key * mn, mask=seen, other=0) != 0)
        kk = tl.load(k + b * kb + h * kh + key[:, None] * kn + at[None, :], mask=here, other=0.0).to(
            tl.float32
        )
        scores = tl.where(seen, tl.sum(kk * query[None, :], 1), -float("inf"))
        higher = tl.maximum(largest, tl.max(scores, 0))
        shift = tl.where(higher == -float("inf"), 0.0, higher)  # no key seen yet: avoid inf - inf
        weights = tl.exp(scores - shift)
        fade = tl.exp(largest - shift)
        vv = tl.load(v + b * vb + h * vh + key[:, None] * vn + at[None, :], mask=here, other=0.0).to(
            tl.float32
        )
        result = result * fade + tl.sum(tl.where(seen[:, None], vv, 0.0) * weights[:, None], 0)
        total = total * fade + tl.sum(weights, 0)
        largest = higher
    tl.store(out + tl.program_id(0) * width + at, (result / total).to(out.dtype.element_ty), mask=inside)


@triton.jit
def rotate_write_attend_kernel(
    qkv,
    cos,
    sin,
    cache_k,
    cache_v,
    where,
    mask,
    out,
    heads,
    keys,
    half,
    scale,
    cb,
    ch,
    mb,
    rb,
    MASKED: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):
    """The halves of queries and keys are rotated with each other, so they stay apart: a, then c."""
    b, h = tl.program_id(0) // heads, tl.program_id(0) % heads
    width = 2 * half
    pair, at = tl.arange(0, HALF), tl.arange(0, BLOCK)
    turned, inside = pair < half, at < width
    cos_a = tl.load(cos + b * rb + pair, mask=turned, other=0.0).to(tl.float32)
    sin_a = tl.load(sin + b * rb + pair, mask=turned, other=0.0).to(tl.float32)
    cos_c = tl.load(cos + b * rb + half + pair, mask=turned, other=0.0).to(tl.float32)
    sin_c = tl.load(sin + b * rb + half + pair, mask=turned, other=0.0).to(tl.float32)
    row = qkv + b * 3 * heads * width + h * width
    kept = cache_k.dtype.element_ty  # rotated queries and keys are rounded to the dtype of the cache
    qa = tl.load(row + pair, mask=turned, other=0.0).to(tl.float32)
    qc = tl.load(row + half + pair, mask=turned, other=0.0).to(tl.float32)
    ka = tl.load(row + heads * width + pair, mask=turned, other=0.0).to(tl.float32)
    kc = tl.load(row + heads * width + half + pair, mask=turned, other=0.0).to(tl.float32)
    new_v = tl.load(row + 2 * heads * width + at, mask=inside, other=0.0)
    query_a = (qa * cos_a - qc * sin_a).to(kept).to(tl.float32) * scale
    query_c = (qc * cos_c + qa * sin_c).to(kept).to(tl.float32) * scale
    key_a, key_c = (ka * cos_a - kc * sin_a).to(kept), (kc * cos_c + ka * sin_c).to(kept)
    place = tl.load(where)  # the position in the cache that this token fills
    head = b * cb + h * ch
    to = head + place * width
    tl.store(cache_k + to + pair, key_a, mask=turned)
    tl.store(cache_k + to + half + pair, key_c, mask=turned)
    tl.store(cache_v + to + at, new_v.to(kept), mask=inside)
    # The new key and value come from registers: what is loaded at their place is not used, and no barrier is
    # needed.
    largest = tl.sum(query_a * key_a.to(tl.float32) + query_c * key_c.to(tl.float32), 0)
    total = 1.0
    result = new_v.to(tl.float32)
    for start in range(0, keys, STEP):
        key = start + tl.arange(0, STEP)
        used = key < keys
        seen = used & (key != place)
        if MASKED:
            seen = seen & (tl.load(mask + b * mb + key, mask=used, other=0) != 0)
        line = head + key[:, None] * width
        here = used[:, None] & turned[None, :]
        kk = cache_k + line + pair[None, :]
        scores = tl.sum(tl.load(kk, mask=here, other=0.0).to(tl.float32) * query_a[None, :], 1)
        scores += tl.sum(tl.load(kk + half, mask=here, other=0.0).to(tl.float32) * query_c[None, :], 1)
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(largest, tl.max(scores, 0))
        weights = tl.exp(scores - higher)
        fade = tl.exp(largest - higher)
        vv = tl.load(cache_v + line + at[None, :], mask=used[:, None] & inside[None, :], other=0.0)
        vv = tl.where(seen[:, None], vv.to(tl.float32), 0.0)
        result = result * fade + tl.sum(vv * weights[:, None], 0)
        total = total * fade + tl.sum(weights, 0)
        largest = higher
    tl.store(out + tl.program_id(0) * width + at, (result / total).to(out.dtype.element_ty), mask=inside)


def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """q (b, h, 1, k), keys and values (b, h, n, k), mask bool, broadcast to (b, h, 1, n) -> (b, h, 1, k)."""
    b, h, _, width = q.shape
    n = k.shape[2]
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out = q.new_empty(b, h, 1, width)
    seen = q if mask is None else mask.expand(b, h, 1, n)
    strides = (0, 0, 0) if mask is None else (seen.stride(0), seen.stride(1), seen.stride(3))
    launch(
        decode_attention_kernel,
        (b * h,),
        q,
        k,
        v,
        seen,
        out,
        h,
        n,
        width,
        float(width**-0.5),
        *q.stride()[:2],
        *k.stride()[:3],
        *v.stride()[:3],
        *strides,
        MASKED=mask is not None,
        BLOCK=power_of_two(width),
        STEP=KEYS,
    )
    return out


def rotate_write_attend(
    qkv: Tensor, cos: Tensor, sin: Tensor, cache: Tensor, where: Tensor, keys: int, mask: Tensor | None
) -> Tensor:
    """One layer's attention of a decode step.

    qkv (b, 3hk); cos, sin (1 or b, k); cache (2, b, h, length, k), contiguous per head; where (1) int64: the
    position that this token fills; keys: the positions in use, this one included; mask bool (b, length) or
    None -> (b, hk). Writes k and v of this token to the cache.
    """
    _, b, h, _, width = cache.shape
    out = qkv.new_empty(b, h * width)
    launch(
        rotate_write_attend_kernel,
        (b * h,),
        qkv,
        cos,
        sin,
        cache[0],
        cache[1],
        where,
        qkv if mask is None else mask,
        out,
        h,
        keys,
        width // 2,
        float(width**-0.5),
        cache.stride(1),
        cache.stride(2),
        0 if mask is None else mask.stride(0),
        0 if len(cos) == 1 else cos.stride(0),
        MASKED=mask is not None,
        HALF=power_of_two(width // 2),
        BLOCK=power_of_two(width),
        STEP=KEYS // 2,  # with more, numbers leave the registers of a CUDA card
    )
    return out
