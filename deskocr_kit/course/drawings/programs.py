"""Drawings of the memory that one program of a kernel reads and writes, from a recording of its run."""

from __future__ import annotations

import numpy as np

from ...display.palette import CELL_BLUE, CELL_ORANGE
from ..interpreted_memory import Program, Seen
from .drawing import Drawing, blank, cell, frame

FIRST, LATER, WRITTEN = (CELL_BLUE, ""), (CELL_ORANGE, "//"), (CELL_BLUE, "..")


def program(seen: Seen, *index: int) -> Drawing:
    """The tensors of a recording as grids of cells, and what the program with this index did with each.

    A tensor (a, b, c) is drawn as `a` planes side by side. A number is how often the program loads that cell;
    w: it stores it. Plain: the first load. Hatched: later loads.
    """
    which: Program = (*index, 0, 0, 0)[:3]  # type: ignore[assignment]
    shapes = {name: tensor.shape[-3:] for name, tensor in seen.tensors.items()}
    sizes = {name: _size(shape) for name, shape in shapes.items()}
    highest = max(height for _, height in sizes.values())
    figure, axes = blank(
        0.9 + 0.26 * sum(width for width, _ in sizes.values()),
        0.7 + 0.26 * highest,
        len(sizes),
        [width for width, _ in sizes.values()],
    )
    said = []
    for axis, name in zip(axes, sizes, strict=True):
        loads, stores = seen.loads(name, which), seen.stores(name, which)
        _draw(axis, shapes[name], loads, stores)
        frame(axis, *sizes[name], f"{name} {'x'.join(map(str, shapes[name]))}")
        if loads:
            again = f" in {len(loads)} loads" if len(loads) > 1 else ""
            said.append(f"loads {sum(map(len, loads))} numbers of {name}{again}")
        if stores:
            said.append(f"stores {sum(map(len, stores))} of {name}")
    shown = ", ".join(map(str, index))
    return Drawing(
        figure, f"program {shown} of {seen.programs}: {', '.join(said) or 'touches none of these'}."
    )


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """(width, height) of a tensor's drawing, in cells: planes have a gap of one cell between them."""
    planes, height, width = (1, 1, *shape)[-3:] if len(shape) < 3 else shape
    return planes * (width + 1) - 1, height


def _draw(axis, shape: tuple[int, ...], loads: list[np.ndarray], stores: list[np.ndarray]) -> None:
    planes, height, width = (1, 1, *shape)[-3:] if len(shape) < 3 else shape
    count, first = np.zeros(planes * height * width, int), np.full(planes * height * width, -1)
    for step, places in enumerate(loads):
        np.add.at(count, places, 1)
        fresh = places[first[places] < 0]
        first[fresh] = step
    written = np.zeros_like(count)
    for places in stores:
        written[places] = 1
    for place in range(len(count)):
        plane, rest = divmod(place, height * width)
        y, x = divmod(rest, width)
        look = ("white", "")
        if first[place] >= 0:
            look = FIRST if first[place] == 0 else LATER
        elif written[place]:
            look = WRITTEN
        text = str(count[place]) if count[place] else "w" if written[place] else ""
        cell(axis, plane * (width + 1) + x, y, text, *look, size=6)
