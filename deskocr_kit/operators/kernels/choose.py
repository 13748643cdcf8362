"""Choose the next token in three launches: n-gram guard, forbidden tokens, largest logit, its probability.

The first kernel finds which tokens would complete an n-gram that is already in the sequence. The second takes
blocks of the vocabulary: the largest allowed logit of each, and the sum of exponentials of all logits, from
which the log-probability follows. The third joins the few block results.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.choose import Rules

from .language import tl, triton
from .launch import blocks, launch, power_of_two

VOCABULARY = 4096  # logits per program
STARTS = 128  # starts of n-grams per step


@triton.jit
def banned_kernel(
    tokens, length, banned, count, free, filled, size, first, most, FREE: tl.constexpr, STEP: tl.constexpr
):
    row = tl.program_id(0)
    line = tokens + row * length
    found = 0
    for start in range(first, filled - size + 1, STEP):
        at = start + tl.arange(0, STEP)
        here = at < filled - size + 1
        same = here
        for back in range(1, size):  # the n-1 tokens before the follower equal the last n-1 tokens
            last = tl.load(line + filled - back)
            other = tl.load(line + at + size - 1 - back, mask=here, other=-1)
            same = same & (other == last)
        follower = tl.load(line + at + size - 1, mask=here, other=-1)
        if FREE:
            same = same & (tl.load(free + tl.where(here, follower, 0)) == 0)
        hit = same.to(tl.int32)
        place = found + tl.cumsum(hit, 0) - hit
        tl.store(banned + row * most + place, follower.to(tl.int32), mask=same & (place < most))
        found += tl.sum(hit, 0)
    tl.store(count + row, found)


@triton.jit
def largest_kernel(
    logits,
    forbidden,
    banned,
    count,
    best,
    index,
    total,
    raw,
    vocabulary,
    parts,
    most,
    FORBIDDEN: tl.constexpr,
    GUARD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, part = tl.program_id(0), tl.program_id(1)
    at = part * BLOCK + tl.arange(0, BLOCK)
    numbers = tl.load(logits + row * vocabulary + at, mask=at < vocabulary, other=-float("inf")).to(
        tl.float32
    )
    highest = tl.max(numbers, 0)
    shift = tl.where(highest == -float("inf"), 0.0, highest)
    tl.store(raw + row * parts + part, highest)
    tl.store(total + row * parts + part, tl.sum(tl.exp(numbers - shift), 0))
    if FORBIDDEN:
        no = tl.load(forbidden + at, mask=at < vocabulary, other=1)
        numbers = tl.where(no != 0, -float("inf"), numbers)
    if GUARD:
        for i in range(0, tl.load(count + row)):
            token = tl.load(banned + row * most + i)
            numbers = tl.where(at == token, -float("inf"), numbers)
    highest = tl.max(numbers, 0)
    tl.store(best + row * parts + part, highest)
    # The first of several equal logits, as torch.max on a CPU.
    tl.store(index + row * parts + part, tl.min(tl.where(numbers == highest, at, vocabulary), 0))


def banned_tokens(
    tokens: Tensor, filled: int, size: int, first: int, most: int, free: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The followers of the n-grams that begin as the sequence ends.

    tokens (b, length) int64, `filled` of them in use; n-grams of `size` that start at `first` or later count
    but tokens in `free` (vocab) bool do not -> (b, most) int32, of which the first `count` (b) are set.
    """
    b, length = tokens.shape
    banned = torch.empty(b, most, dtype=torch.int32, device=tokens.device)
    count = torch.empty(b, dtype=torch.int32, device=tokens.device)
    launch(
        banned_kernel,
        (b,),
        tokens,
        length,
        banned,
        count,
        tokens if free is None else free,
        filled,
        size,
        first,
        most,
        FREE=free is not None,
        STEP=STARTS,
    )
    return banned, count


def largest(
    logits: Tensor, forbidden: Tensor | None, guard: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per block of the vocabulary: (largest allowed logit, its token, largest logit, sum of exp(logit - it)).

    logits (b, vocab); forbidden (vocab) bool or None; guard: the result of `banned_tokens` or None; each
    result (b, blocks).
    """
    b, vocabulary = logits.shape
    block = min(VOCABULARY, power_of_two(vocabulary))
    parts = blocks(vocabulary, block)
    best, total, raw = (torch.empty(b, parts, dtype=torch.float32, device=logits.device) for _ in "123")
    index = torch.empty(b, parts, dtype=torch.int32, device=logits.device)
    banned, count = guard if guard is not None else (index, index)
    launch(
        largest_kernel,
        (b, parts),
        logits.contiguous(),
        logits if forbidden is None else forbidden,
        banned,
        count,
        best,
        index,
        total,
        raw,
        vocabulary,
        parts,
        banned.shape[1],
        FORBIDDEN=forbidden is not None,
        GUARD=guard is not None,
        BLOCK=block,
    )
    return best, index, raw, total


@triton.jit
def join_kernel(
    best,
    index,
    raw,
    total,
    tokens,
    values,
    logprobs,
    finished,
    ends,
    place,
    parts,
    pad,
    st,
    sv,
    sl,
    ENDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    inside = at < parts
    largest = tl.load(best + row * parts + at, mask=inside, other=-float("inf"))
    highest = tl.max(largest, 0)
    candidates = tl.load(index + row * parts + at, mask=inside, other=2147483647)
    token = tl.min(tl.where(largest == highest, candidates, 2147483647), 0).to(tl.int64)
    of_all = tl.load(raw + row * parts + at, mask=inside, other=-float("inf"))
    top = tl.max(of_all, 0)
    sums = tl.load(total + row * parts + at, mask=inside, other=0.0)
    whole = tl.sum(sums * tl.exp(of_all - top), 0)
    # A NaN or Inf among the logits makes the sum NaN; the product carries it to the value that is looked at.
    tl.store(values + row * sv + place, (highest + 0.0 * whole).to(values.dtype.element_ty))
    tl.store(logprobs + row * sl + place, highest - top - tl.log(whole))
    ended = tl.load(finished + row) != 0
    token = tl.where(ended, pad, token)
    tl.store(tokens + row * st + place, token)
    for i in range(ENDS):
        ended = ended | (token == tl.load(ends + i))
    tl.store(finished + row, ended)


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
    """See model.choose.choose for the arguments. Three launches, two without the guard."""
    guard = None
    if rules.size and first <= at - rules.size:
        most = tokens.shape[1]
        guard = banned_tokens(tokens, at, rules.size, first, most, rules.free)
    found, index, raw, total = largest(logits, rules.forbidden, guard)
    launch(
        join_kernel,
        (len(tokens),),
        found,
        index,
        raw,
        total,
        tokens,
        best,
        logprobs,
        finished,
        tokens if rules.ends is None else rules.ends,
        at,
        found.shape[1],
        rules.pad,
        tokens.stride(0),
        best.stride(0),
        logprobs.stride(0),
        ENDS=0 if rules.ends is None else len(rules.ends),
        BLOCK=power_of_two(found.shape[1]),
    )
