"""Guards against repetition: which tokens would complete an n-gram that is already in the sequence.

Both guards look up the last n-1 tokens among the earlier starts of n-grams. They work incrementally, O(1) per
token; the original rebuilds every n-gram of the sequence at each step.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class NgramGuard:
    """The guard for one sequence: `append` every token; `banned()` returns the forbidden next tokens.

    Args:
        size: n; 0 switches the guard off.
        window: only n-grams that start in the last `window` tokens count (the rule of the original's serving
            scripts). None: the whole sequence, prompt and padding included (the rule of transformers).
        whitelist: tokens that are never banned, for example table cells.
    """

    def __init__(self, size: int, window: int | None = None, whitelist: Iterable[int] = ()):
        if size < 0:
            raise ValueError(f"n-gram size must be 0 (off) or more, got {size}")
        if window is not None and window <= 0:
            raise ValueError(f"n-gram window must be positive or None, got {window}")
        self.size, self.window, self.whitelist = size, window, frozenset(whitelist)
        self.tail: deque[int] = deque(maxlen=max(0, size - 1))  # the last n-1 tokens
        self.length = 0
        # {the n-1 tokens of a prefix: [(start of the n-gram, its last token)]}
        self.following: dict[tuple[int, ...], deque[tuple[int, int]]] = defaultdict(deque)

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
            self.forget(starts)
        self.tail.append(token)
        self.length += 1

    def forget(self, starts: deque[tuple[int, int]]) -> None:
        """Drop the starts that have left the window, which only moves forward."""
        while self.window is not None and starts and starts[0][0] < self.length - self.window:
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
    """The result of `NgramGuard` for one complete sequence."""
    return NgramGuard(size, window, whitelist).extend(tokens).banned()


def by_token(vocab: int, rest, listed: Iterable[int], value, device: torch.device) -> Tensor:
    """A table (vocab) on the device: `value` for the listed tokens, `rest` for all others.

    Only the list is copied to the device, eight bytes per token; the table would be half a megabyte per page.
    """
    table = torch.full((vocab,), rest, device=device)
    listed = sorted(token for token in set(listed) if 0 <= token < vocab)
    if listed:
        table[torch.tensor(listed).to(device)] = value
    return table


class DeviceGuard:
    """The same rules for a batch on the device, without copies between host and device per token.

    For every position it keeps the number of tokens up to there that equal the last tokens of the sequence.
    A new token makes each of these runs one longer or ends it, so a step costs the same few operators for
    any n. With a window only the positions inside it are kept, so a step does not grow with the sequence.

    Args:
        ids: (b, length) int64 on the device, the prompt in its first `filled` columns. The caller writes each
            new token to the next column before `append`.
    """

    def __init__(
        self, ids: Tensor, filled: int, size: int, window: int | None, whitelist: Iterable[int], vocab: int
    ):
        NgramGuard(size, window)  # raises ValueError for invalid arguments
        self.ids, self.filled, self.size, self.window = ids, filled, size, window
        self.off = size == 0 or (size == 1 and window is not None)
        if self.off:
            return
        self.penalty = by_token(vocab, -torch.inf, whitelist, 0.0, ids.device)
        self.nothing = torch.zeros((), device=ids.device)
        same, run = None, torch.zeros(len(ids), ids.shape[1] + 1, dtype=torch.int32, device=ids.device)
        for back in range(min(size - 1, filled)):
            equal = ids[:, : filled - back] == ids[:, filled - 1 - back, None]
            same = equal if same is None else same[:, 1:] & equal
            run[:, back + 1 : filled + 1] += same.to(torch.int32)
        self.run, self.next = run, torch.zeros_like(run)  # run[:, 0] stays 0

    def append(self) -> None:
        """Account for the new token in column `filled` of ids."""
        self.filled += 1
        if self.off:
            return
        n = self.filled
        # The first position that this step or a later one reads: see `apply`.
        low = 0 if self.window is None else max(0, n - self.window + self.size - 2)
        longer = torch.add(self.run[:, low:n], 1, out=self.next[:, low + 1 : n + 1])
        longer.mul_(self.ids[:, low:n] == self.ids[:, n - 1 : n])
        self.run, self.next = self.next, self.run

    def apply(self, logits: Tensor) -> Tensor:
        """logits (b, vocab) -> the same with -inf for tokens that would repeat an n-gram."""
        n, size = self.filled, self.size
        first = 0 if self.window is None else max(0, n - self.window)
        if self.off or n < size or first > n - size:
            return logits
        followers = self.ids[:, first + size - 1 : n]
        if self.penalty.dtype != logits.dtype:
            self.penalty, self.nothing = self.penalty.to(logits.dtype), self.nothing.to(logits.dtype)
        penalty = self.penalty[followers]
        if size > 1:
            hit = self.run[:, first + size - 1 : n] >= size - 1
            penalty = torch.where(hit, penalty, self.nothing)
        return logits.scatter_add(1, followers, penalty)  # repeated tokens still give -inf
