"""Detect texts that repeat themselves: the fault of this model that is reported most, so it is counted."""

from __future__ import annotations

import numpy as np

LONGEST_UNIT = 200  # characters
TIMES, SPAN = 3, 40  # a loop: at least TIMES units in a row, over at least SPAN characters


def longest_run(text: str) -> int:
    """The length in characters of the longest run of one unit, TIMES or more in a row; 0 if there is none."""
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
    """Whether a unit repeats over SPAN characters, and over twice the longest run of the truth, if given."""
    run = longest_run(text)
    return run >= SPAN and run >= 2 * longest_run(truth or "")
