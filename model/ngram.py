"""Guards against repetition loops: which tokens would complete an n-gram that was already said.

Both rules look up the last n-1 tokens among the earlier starts of n-grams. Kept incrementally: O(1) per
token, where the original rebuilds every n-gram of the sequence at each step.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence


class NgramGuard:
    """Feed it every token of one sequence; `banned()` says what must not come next.

    size: n. 0 switches the guard off.
    window: only n-grams that start in the last `window` tokens count (the rule of the original's serving
        scripts);
        None takes the whole sequence, prompt and padding included (the rule of transformers).
    whitelist: tokens that are never banned, for example table cells.

    With n = 1 the windowed rule of the original bans nothing (its empty prefix is compared with the whole
    sequence), the whole-sequence rule bans every token seen. Both are kept.
    """

    def __init__(self, size: int, window: int | None = None, whitelist: Iterable[int] = ()):
        if size < 0:
            raise ValueError(f"n-gram size must be 0 (off) or more, got {size}")
        if window is not None and window <= 0:
            raise ValueError(f"n-gram window must be positive or None, got {window}")
        self.size, self.window, self.whitelist = size, window, frozenset(whitelist)
        self.tail: deque[int] = deque(maxlen=max(0, size - 1))  # the last n-1 tokens: the prefix asked about
        self.length = 0
        self.following: dict[tuple[int, ...], deque[tuple[int, int]]] = defaultdict(
            deque
        )  # prefix: (start, next)

    def extend(self, tokens: Iterable[int]) -> NgramGuard:
        for token in tokens:
            self.append(token)
        return self

    def append(self, token: int) -> None:
        if self.size == 0:
            return
        if len(self.tail) == self.size - 1:
            starts = self.following[tuple(self.tail)]
            starts.append((self.length - self.size + 1, token))
            if self.window is not None:
                self.forget(starts)
        self.tail.append(token)
        self.length += 1

    def forget(self, starts: deque[tuple[int, int]]) -> None:
        """Drop the starts that have left the window; it only ever moves forward."""
        while starts and starts[0][0] < self.length - self.window:
            starts.popleft()

    def banned(self) -> set[int]:
        if self.size == 0 or self.length < self.size or (self.size == 1 and self.window is not None):
            return set()
        starts = self.following.get(tuple(self.tail))
        if not starts:
            return set()
        if self.window is not None:
            self.forget(starts)
        return {token for _, token in starts} - self.whitelist


def banned_tokens(
    tokens: Sequence[int], size: int, window: int | None = None, whitelist: Iterable[int] = ()
) -> set[int]:
    """`NgramGuard` for one finished sequence."""
    return NgramGuard(size, window, whitelist).extend(tokens).banned()
