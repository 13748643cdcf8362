"""Puzzle: masked_scatter_ computed on the host and written back into the view."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle
from .sandbox import npu


def scatter_on_a_view(row, mask, source):
    """Do row.masked_scatter_(mask, source) on the host, for a device that lacks the operator.

    `row` (n, d) is a view of a larger tensor, which must change. mask (n, 1) bool.
    """
    host = row.cpu().masked_scatter(mask.cpu(), source.cpu())
    return row.copy_(host)  # writes into the view; a new tensor would change nothing


def _base_after(function, base, index, mask, source):
    """The base tensor after the call on a view of it."""
    device = npu()
    base = base.to(device)
    result = function(base[index], mask.to(device), source.to(device))
    return ... if result is ... else base.cpu()


def cases():
    generator = torch.Generator().manual_seed(2)
    for label, shape, index, extra in (
        ("the second of two rows", (2, 6, 3), 1, 0),
        ("the first row", (3, 5, 4), 0, 0),
        ("the source is longer", (2, 6, 3), 0, 4),
        ("every second token of a row", (2, 8, 3), (1, slice(None, None, 2)), 0),
    ):
        base, expected = small(*shape), small(*shape)
        mask = torch.rand((expected[index].shape[0], 1), generator=generator) < 0.6
        source = small(int(mask.sum()) + extra, shape[-1], seed=1)
        expected[index].masked_scatter_(mask, source)
        yield Case(label, (base, index, mask, source), expected, look=_base_after)
    base, none = small(2, 4, 3), torch.zeros(4, 1, dtype=torch.bool)
    yield Case("no position is marked", (base, 1, none, small(0, 3)), base.clone(), look=_base_after)


_LACKS = "the device lacks it; compute it on the host"
PUZZLE = Puzzle(
    title="Scatter on a view",
    chinese="在视图上原地写入：返回新张量不会改变原来的数据。",
    difficulty=2,
    importance=5,
    minutes=5,
    hint="Copy three tensors to the host and one back. Which in-place operator writes a tensor into a view?",
    solution=scatter_on_a_view,
    cases=cases,
    forbidden={
        "masked_scatter_ on the device": _LACKS,
        "masked_scatter on the device": _LACKS,
    },
)
