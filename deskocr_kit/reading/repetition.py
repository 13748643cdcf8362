"""Does an answer loop? It is the fault of this model that is reported most; all commands count it alike.

A loop seldom repeats exactly: the n-gram guard, which is on by default, forbids any 20 tokens that were there
before, so the model changes a token in each 19, inserts or skips one, takes two lines in turn, or counts the
places of a box up. Therefore copies are compared with tolerance:

    A token is *copied* if it stands in a run of RUN equal tokens one period earlier or later, give or take
    DRIFT tokens. A stretch of several periods is a loop if nearly all of its tokens are copied.

What pages contain is no loop: columns of numbers and dates, empty cells, dot leaders. They repeat few
different tokens, so a unit of less than DIFFERENT ones counts only if it fills most of an answer or ends it.
Not found: a short unit in which more than one token in ten is new, such as boxes without text whose four
numbers all change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_PERIOD = 256  # tokens
RUN, DRIFT = 4, 2  # tokens
LONG_RUN = 8  # tokens; a longer run of one token is taken as one
LEAST = 96  # tokens of a stretch
#: (share of copied tokens, periods that follow each other): the less exact, the more often
LEVELS = ((0.97, 5), (0.94, 8), (0.88, 16))
SHORT_PERIOD, SHORT_PERIODS = 12, 12  # a shorter period must occur at least so often
DIFFERENT = 8  # tokens of a unit
FEW_RUN, FEW_SHARE = 12, 0.9  # for units of less than DIFFERENT tokens
FEW_ANYWHERE, FEW_AT_END = 1000, 300  # tokens
END_PERIOD, END_TIMES, END_LEAST = 64, 4, 24  # exact copies at the end of an answer


def loops(ids: Sequence[int]) -> bool:
    """Whether the token ids of an answer loop. The end token may be there or not. 0.1 s for 8192 ids."""
    return looped(ids) > 0


def looped(ids: Sequence[int]) -> int:
    """About how many tokens of an answer belong to a loop; 0 for none. See `loops`."""
    found = np.asarray(ids, dtype=np.int64)
    if len(found) > 1 and (found == found[-1]).sum() == 1:
        found = found[:-1]  # the end token, or a last token that repeats nothing
    return max(exact_end(found), few_tokens(found), near_copies(squeezed(found)))


def exact_end(ids: np.ndarray) -> int:
    """The length of the run of exact copies with which an answer ends, or 0."""
    best = 0
    for period in range(1, min(END_PERIOD, len(ids) // END_TIMES) + 1):
        different = np.flatnonzero(ids[period:] != ids[:-period])
        length = len(ids) - (int(different[-1]) + 1 if len(different) else 0)
        if length >= max(END_TIMES * period, END_LEAST) and 4 * len(set(ids[-period:].tolist())) >= period:
            best = max(best, length)
    return best


def few_tokens(ids: np.ndarray) -> int:
    """The length of the longest stretch that repeats a unit, with a changed token now and then, or 0.

    Runs of one token are looked at by themselves: a table of contents has dots in each line.
    """
    best, short = 0, squeezed(ids)
    for period in range(1, min(END_PERIOD, len(ids) // END_TIMES) + 1):
        among = ids if period == 1 else short
        if period >= len(among):
            break
        copied = copies(among, period, FEW_RUN)
        if len(among) >= FEW_AT_END and copied[-FEW_AT_END:].mean() >= FEW_SHARE:
            best = max(best, FEW_AT_END)
        best = max(best, int(windows(copied, FEW_ANYWHERE, FEW_SHARE).sum()))
    return best


def near_copies(ids: np.ndarray) -> int:
    """The number of tokens in stretches of near copies of a unit with many different tokens."""
    longest = min(LONGEST_PERIOD, len(ids) // LEVELS[0][1])
    copied = {lag: copies(ids, lag, RUN) for lag in range(1, min(longest + DRIFT, len(ids) - 1) + 1)}
    free = np.ones(len(ids), bool)  # not yet explained by a short unit of few tokens
    found = np.zeros(len(ids), bool)
    for period in range(2, longest + 1):
        lags = range(max(1, period - DRIFT), period + DRIFT + 1)
        near = np.logical_or.reduce([copied[lag] for lag in lags if lag in copied]) & free
        for share, times in LEVELS:
            times = max(times, SHORT_PERIODS) if period < SHORT_PERIOD else times
            inside = windows(near, max(LEAST, times * period), share)
            if not inside.any():
                continue
            counts = np.unique(ids[inside & near], return_counts=True)[1]
            if (counts >= inside.sum() / period / 2).sum() >= DIFFERENT:
                found |= inside
            else:
                free &= ~inside
    return int(found.sum())


def copies(ids: np.ndarray, lag: int, run: int) -> np.ndarray:
    """Which tokens stand in a run of `run` tokens that are there `lag` tokens earlier or later, too."""
    same = in_runs(ids[lag:] == ids[:-lag], run)
    both = np.zeros(len(ids), bool)
    both[lag:] |= same
    both[:-lag] |= same
    return both


def in_runs(same: np.ndarray, length: int) -> np.ndarray:
    """The True values that stand in a row of at least `length` True values."""
    edges = np.flatnonzero(np.diff(same, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= length
    change = np.zeros(len(same) + 1, np.int64)
    change[starts[long]] += 1
    change[ends[long]] -= 1
    return np.cumsum(change)[:-1] > 0


def windows(marked: np.ndarray, width: int, share: float) -> np.ndarray:
    """The places in any window of `width` of which at least `share` are marked."""
    if width > len(marked):
        return np.zeros(len(marked), bool)
    sums = np.concatenate(([0], np.cumsum(marked)))
    good = np.flatnonzero(sums[width:] - sums[:-width] >= share * width)
    change = np.zeros(len(marked) + 1, np.int64)
    np.add.at(change, good, 1)
    np.add.at(change, good + width, -1)
    return np.cumsum(change)[:-1] > 0


def squeezed(ids: np.ndarray) -> np.ndarray:
    """The ids with each long run of one token as one token: dot leaders and ruled lines are not compared."""
    starts = np.flatnonzero(np.diff(ids, prepend=-1) != 0)
    lengths = np.diff(starts, append=len(ids))
    return np.repeat(ids[starts], np.where(lengths > LONG_RUN, 1, lengths))
