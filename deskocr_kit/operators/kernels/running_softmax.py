"""The running softmax of attention with many queries: what it holds after each block of keys."""

from __future__ import annotations

from .language import tl, triton


@triton.jit
def add_keys(scores, values, largest, total, result):
    """(largest, total, result) of every query with one more block of keys.

    scores (BM, BN) fp32, values (BN, BLOCK). largest (BM): the highest score so far, -inf at first; each
    query has a finite score in its first block. total (BM), result (BM, BLOCK) fp32: sums over the keys so
    far of exp(score - largest) and of that times the value; the attention is result / total in the end.
    """
    higher = tl.maximum(largest, tl.max(scores, 1))
    weights = tl.exp(scores - higher[:, None])
    fade = tl.exp(largest - higher)
    result = result * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    total = total * fade + tl.sum(weights, 1)
    return higher, total, result
