"""Drawings of convolution windows, made by F.unfold and reshape on pixels that hold their address."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...display.palette import CELL_BLUE, CELL_ORANGE, CELL_PALE
from .drawing import Drawing, blank, cell, frame

MARKS = (("", CELL_BLUE), ("//", CELL_ORANGE))


def _addresses(side: int) -> torch.Tensor:
    """The addresses 1, 2, 3, … as an image (1, 1, side, side). 0 means padding."""
    return torch.arange(1.0, side * side + 1).view(1, 1, side, side)


def columns(side: int = 5, kernel: int = 3, stride: int = 1, padding: int = 1, picked=(0, 12)) -> Drawing:
    """An image with two of its windows, and the matrix of F.unfold with their columns."""
    matrix = F.unfold(_addresses(side), (kernel, kernel), padding=padding, stride=stride)[0].int()
    numbers = torch.arange(1.0, (side + 2 * padding) ** 2 + 1).view(
        1, 1, side + 2 * padding, -1
    )  # numbers every pixel, padding included
    places = F.unfold(numbers, (kernel, kernel), stride=stride)[0].int()
    first, second = (set(places[:, column].tolist()) for column in picked)
    rows, count = matrix.shape
    figure, (left, right) = blank(9.6, 3.4, 2, (side + 2 * padding, count))
    for y in range(-padding, side + padding):
        for x in range(-padding, side + padding):
            inside = 0 <= x < side and 0 <= y < side
            address = y * side + x + 1 if inside else 0
            number = (y + padding) * (side + 2 * padding) + x + padding + 1
            plain = "white" if inside else CELL_PALE
            colour = CELL_BLUE if number in first else CELL_ORANGE if number in second else plain
            hatch = MARKS[1][0] if number in second else ""
            cell(left, x + padding, y + padding, address, colour, hatch)
    frame(left, side + 2 * padding, side + 2 * padding, f"image {side}x{side}, 0 = padding")
    for y in range(rows):
        for x in range(count):
            hatch, colour = MARKS[picked.index(x)] if x in picked else ("", "white")
            cell(right, x, y, int(matrix[y, x]), colour, hatch, size=6)
    copies = rows * count / side**2
    frame(right, count, rows, f"columns ({rows}, {count}): one window each, {copies:.3g}x the image")
    return Drawing(
        figure,
        f"im2col of a {side}x{side} image, kernel {kernel}, stride {stride}, padding {padding}: "
        f"{count} columns of {rows} numbers; the two marked windows are the two marked columns.",
    )


def windows(side: int = 9, kernel: int = 3, stride: int = 2, padding: int = 1) -> Drawing:
    """Centres of the windows of F.unfold, called by keyword and as `F.unfold(x, k, padding, stride)`."""
    x = _addresses(side)
    calls = {
        "by keyword": lambda: F.unfold(x, kernel, padding=padding, stride=stride),
        "F.unfold(x, k, padding, stride)": lambda: F.unfold(x, kernel, padding, stride),
    }
    figure, axes = blank(7.4, 3.7, 2)
    counts = []
    for axis, (title, call) in zip(axes, calls.items(), strict=True):
        middles = call()[0][kernel * kernel // 2].int().tolist()  # the address in the middle of each window
        counts.append(len(middles))
        for address in range(1, side * side + 1):
            hit = address in middles
            y, x0 = divmod(address - 1, side)
            cell(axis, x0, y, "●" if hit else "", CELL_ORANGE if hit else "white", size=8)
        outside = middles.count(0)
        more = f" ({outside} centred on padding)" if outside else ""
        frame(axis, side, side, f"{title}\n{len(middles)} windows{more}")
    return Drawing(
        figure,
        f"centres of windows, kernel {kernel}, stride {stride}, padding {padding}, {side}x{side} pixels: "
        f"{counts[0]} by keyword, {counts[1]} by position.",
    )


def patches(side: int = 8, patch: int = 4) -> Drawing:
    """An image and the matrix that one reshape makes of it. Each row is one patch."""
    count = side // patch
    picture = _addresses(side)[0, 0].int()
    rows = picture.view(count, patch, count, patch).transpose(1, 2).reshape(count * count, -1)
    looks = [(CELL_BLUE, ""), (CELL_ORANGE, "//"), (CELL_PALE, ""), ("white", "..")]
    of = {int(a): looks[i % len(looks)] for i, row in enumerate(rows) for a in row}
    figure, (left, right) = blank(9.6, 2.9, 2, (side, rows.shape[1]))
    for axis, matrix in ((left, picture), (right, rows)):
        for y, line in enumerate(matrix.tolist()):
            for x, address in enumerate(line):
                cell(axis, x, y, address, *of[address])
    frame(left, side, side, f"image {side}x{side}: patches do not overlap")
    frame(right, rows.shape[1], len(rows), f"rows {tuple(rows.shape)}: each number once")
    return Drawing(
        figure,
        f"an image of {side}x{side} cut into {len(rows)} patches of {patch}x{patch}: each becomes one row, "
        "and each number is copied once.",
    )
