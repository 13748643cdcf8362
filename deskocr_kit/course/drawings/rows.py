"""Drawings of the rows that a scatter replaces, and of tensors that share memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ...display.palette import CELL_BLUE, CELL_ORANGE, CELL_PALE, INK
from .drawing import Drawing, blank, cell, frame


def storage(tensors: Mapping[str, Tensor]) -> Drawing:
    """Draw one strip per storage, and one bar per tensor in it, at its true offset and length."""
    found: dict[int, list[tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        found.setdefault(tensor.untyped_storage().data_ptr(), []).append((name, tensor))
    figure, (axis,) = blank(8.4, 0.6 + 0.62 * (len(tensors) + len(found)))
    longest = max(each.untyped_storage().nbytes() for each in tensors.values())
    y, parts = 0.0, []
    for number, members in enumerate(found.values(), 1):
        size = members[0][1].untyped_storage().nbytes()
        cell(axis, 0, y, f"memory {number}: {size} bytes", CELL_PALE, w=10 * size / longest, h=0.8, size=8)
        y += 0.9
        for name, tensor in members:
            start, length = tensor.storage_offset() * tensor.element_size(), tensor.nbytes
            look = (CELL_BLUE, "") if length == size else (CELL_ORANGE, "//")
            cell(
                axis, 10 * start / longest, y, f"{name} {list(tensor.shape)}", *look,
                w=10 * length / longest, h=0.8, size=8,
            )  # fmt: skip
            y += 0.9
        y += 0.3
        parts.append(f"memory {number} holds {' and '.join(name for name, _ in members)}")
    axis.set_xlim(-0.1, 10.1)
    axis.set_ylim(y, -0.2)
    return Drawing(figure, "; ".join(parts) + ".")


def scatter(before: Tensor, mask: Tensor, source: Tensor, after: Tensor) -> Drawing:
    """Draw which rows a scatter replaced; the arrows come from comparing rows.

    before, after: (n, d); mask: (n,) bool; source: (m, d).
    """
    n, d = before.shape
    m = len(source)
    figure, (axis,) = blank(8.6, 0.32 * n + 0.7)
    at = {"source": 0, "mask": d + 2.5, "before": d + 4, "after": 2 * d + 6.5}
    for y in range(m):
        for x in range(d):
            cell(axis, at["source"] + x, y, int(source[y, x]), CELL_ORANGE, "//")
    for y in range(n):
        cell(axis, at["mask"], y, "T" if mask[y] else "F", CELL_ORANGE if mask[y] else "white")
        new = not torch.equal(before[y], after[y])
        for x in range(d):
            cell(axis, at["before"] + x, y, int(before[y, x]), CELL_BLUE)
            cell(
                axis, at["after"] + x, y, int(after[y, x]), *((CELL_ORANGE, "//") if new else (CELL_BLUE, ""))
            )
        if new:
            taken = next(i for i in range(m) if torch.equal(source[i], after[y]))
            axis.annotate(
                "", (at["mask"], y + 0.5), (at["source"] + d, taken + 0.5),
                arrowprops={"arrowstyle": "->", "color": INK, "lw": 1},
            )  # fmt: skip
    for name, left in at.items():
        width = 1 if name == "mask" else d
        axis.text(left + width / 2, -0.25, name, ha="center", va="bottom", fontsize=9)
    frame(axis, at["after"] + d, n, "")
    axis.set_ylim(n + 0.2, -1.2)
    return Drawing(
        figure, f"{int(mask.sum())} of {n} rows are replaced, in order, by the {m} rows of the source."
    )
