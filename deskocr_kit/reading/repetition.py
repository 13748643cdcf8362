"""Does a text repeat itself? The most quoted fault of this model, so it has a rate of its own."""

from __future__ import annotations

import numpy as np

LONGEST_UNIT = 200  # characters
TIMES, SPAN = 3, 40  # a loop: a unit at least so many times in a row, over at least so many characters


def longest_run(text: str) -> int:
    """Characters of the longest stretch that is one unit TIMES or more in a row; 0 if there is none."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    best = 0
    for unit in range(1, min(LONGEST_UNIT, len(codes) // TIMES) + 1):
        same = np.concatenate(([0], codes[unit:] == codes[:-unit], [0]))
        edges = np.flatnonzero(np.diff(same))
        if len(edges):
            span = int((edges[1::2] - edges[::2]).max()) + unit
            if span >= TIMES * unit:
                best = max(best, span)
    return best


def loops(text: str, truth: str | None = None) -> bool:
    """Whether the text repeats a unit over SPAN characters, and twice as far as the truth does, if known."""
    run = longest_run(text)
    return run >= SPAN and run >= 2 * longest_run(truth or "")
