"""Puzzle: masked_scatter by a cumulative sum, without a wait."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle
from .sandbox import never_waits


def cumsum_where(embeds, mask, source):
    """Put the rows of source into the marked rows of embeds, in order, without a wait.

    Without masked_scatter, which the device lacks.

    embeds (n, d), mask (n,) bool, source (m, d), m >= number of marks -> (n, d), new.
    """
    number = mask.int().cumsum(0) - 1  # the row of source for each position; -1 before any mark
    rows = source[number.clamp(min=0)]
    return torch.where(mask[:, None], rows, embeds)


def cases():
    for label, marks, extra in (
        ("a block in the middle", "0011100", 0),
        ("the first position is not marked", "0101101", 0),
        ("every position is marked", "1111", 0),
        ("no position is marked", "0000", 1),
        ("the source is longer", "0110010", 3),
        ("a single position", "1", 0),
    ):
        mask = torch.tensor([each == "1" for each in marks])
        embeds, source = small(len(marks), 3), small(marks.count("1") + extra, 3, seed=1)
        expected = embeds.masked_scatter(mask[:, None], source)
        yield Case(label, (embeds, mask, source), expected, look=never_waits)


_LACKS = "the device lacks it"
PUZZLE = Puzzle(
    title="A cumulative sum instead of a scatter",
    chinese="用累加计数代替 masked_scatter：每个位置自己知道该取第几行，主机不用等待设备。",
    difficulty=3,
    importance=5,
    minutes=10,
    hint="At each marked position, the cumulative sum of the mask is the number of marks so far. Which row "
    "of source is that? What must happen to the positions before the first mark?",
    solution=cumsum_where,
    cases=cases,
    forbidden={"masked_scatter": _LACKS, "masked_scatter_": _LACKS},
)
