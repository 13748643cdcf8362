"""The choice of the next token of every sample: the slot `choose`.

The slot spans the n-gram guard, forbidden tokens, the largest logit, its log-probability, and the end of a
sample. The reference composes plain operators from the whole sequence; the decode loop itself takes the
incremental guard of ngram.py, as long as this slot holds the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rules:
    """What may be chosen, and what ends a sample.

    Args:
        size: n of the n-gram guard; 0: off.
        free: (vocab) bool, tokens that the guard never forbids; None: there are none.
        forbidden: (vocab) bool, tokens that are never chosen; None: there are none.
        ends: (e) int64, tokens that end a sample; None: there are none.
        pad: what a sample gets that has ended.
    """

    size: int = 0
    free: Tensor | None = None
    forbidden: Tensor | None = None
    ends: Tensor | None = None
    pad: int = 0


def choose(
    logits: Tensor,
    tokens: Tensor,
    at: int,
    first: int,
    best: Tensor,
    logprobs: Tensor,
    finished: Tensor,
    rules: Rules,
) -> None:
    """Write the chosen token of each sample to tokens[:, at], and its figures beside it.

    logits (b, vocab); tokens (b, length) int64, of which `at` are in use; n-grams that start at `first` or
    later count. Writes best[:, at], the chosen logit (NaN if a logit is NaN or Inf); logprobs[:, at] fp32,
    its log-probability over the whole vocabulary, before any rule; and finished (b, 1) bool.
    """
    scores = logits.clone()
    starts = range(first, at - rules.size + 1) if rules.size else ()
    for row in range(len(tokens)):
        ids = tokens[row, :at].tolist()
        tail = ids[at - rules.size + 1 :] if rules.size > 1 else []
        banned = {ids[s + rules.size - 1] for s in starts if ids[s : s + rules.size - 1] == tail}
        for token in banned:
            if rules.free is None or not rules.free[token]:
                scores[row, token] = -torch.inf
    if rules.forbidden is not None:
        scores = scores.masked_fill(rules.forbidden, -torch.inf)
    values, chosen = scores.max(-1)
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    bad = ~logits.isfinite().all(-1)
    best[:, at] = values.masked_fill(bad, torch.nan)
    logprobs[:, at] = shares.gather(1, chosen[:, None])[:, 0]
    chosen = torch.where(finished[:, 0], rules.pad, chosen)
    tokens[:, at] = chosen
    if rules.ends is not None:
        finished |= (chosen[:, None] == rules.ends[None]).any(1, keepdim=True)
