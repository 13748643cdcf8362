"""Whether the tokens of a reading end in a loop."""

from __future__ import annotations


def loops(ids: list[int], longest: int = 64, times: int = 4, least: int = 24) -> bool:
    """Whether a reading ends in a loop.

    A loop is one piece of 1 to `longest` tokens, at least `times` times in a row, over at least `least`
    tokens. The end token does not count. Shorter repetitions are allowed: a page may contain them.
    """
    ids = ids[:-1]
    for period in range(1, longest + 1):
        span = max(times * period, least)
        tail = ids[-span:]
        if len(tail) == span and tail[period:] == tail[:-period]:
            return True
    return False
