"""Puzzle: choose the next token on the device, with some tokens forbidden."""

from __future__ import annotations

import torch

from ...operators.kernels.language import tl
from .judge import small
from .kernels import JIT, start
from .puzzle import Case, Puzzle


def argmax_with_ban(logits, banned, out, vocabulary, BLOCK: tl.constexpr):
    """Program i writes the index of the largest logit of row i that is not banned.

    logits (rows, vocabulary) fp32; banned (vocabulary) int32, not 0: forbidden; out (rows)
    int32. Of equal logits the first counts. The vocabulary is larger than BLOCK.
    """
    row = tl.program_id(0)
    best, index = -float("inf"), 0
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        no = tl.load(banned + at, mask=at < vocabulary, other=1)
        numbers = tl.load(logits + row * vocabulary + at, mask=no == 0, other=-float("inf"))
        here = tl.max(numbers, 0)
        index = tl.where(here > best, first + tl.argmax(numbers, 0), index)
        best = tl.maximum(best, here)
    tl.store(out + row, index)


def cases():
    for label, rows, vocabulary, forbidden, shift in (
        ("nothing is forbidden", 1, 16, (), 0),
        ("two rows", 2, 24, (), 0),
        ("the vocabulary ends inside a block", 2, 21, (), 0),
        ("every logit is negative", 2, 21, (), -10),
        ("the largest is forbidden", 1, 21, (3, 7, 12, 18), 0),
    ):
        logits, banned = small(rows, vocabulary) + shift, torch.zeros(vocabulary, dtype=torch.int32)
        banned[list(forbidden)] = 1
        logits[:, list(forbidden)] += 5
        yield _case(label, logits, banned)
    equal = torch.zeros(2, 30)
    equal[:, [5, 13, 27]] = 1.0
    yield _case("three equal logits in three blocks", equal, (torch.arange(30) == 5).int())


def _case(label, logits, banned):
    expected = logits.masked_fill(banned.bool(), -torch.inf).argmax(-1).int()
    sizes, out = (logits.shape[1],), torch.empty(len(logits), dtype=torch.int32)
    args = ((len(logits),), (logits, banned), out, sizes, {"BLOCK": 8})
    return Case(label, args, expected, look=start, budget=0.0)


PUZZLE = Puzzle(
    title="Argmax with a ban",
    chinese="在设备上选下一个 token：词表分块，禁用的 token 当作负无穷，主机不必等待。",
    difficulty=3,
    importance=4,
    minutes=20,
    hint="Go through the vocabulary block by block and keep the best logit so far and its index. tl.max and "
    'tl.argmax reduce one block. What must not be chosen counts as -float("inf"), also behind the end.',
    solution=argmax_with_ban,
    cases=cases,
    decorator=JIT,
)
