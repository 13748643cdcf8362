"""Which tokens would complete an n-gram that was already said, for one sequence or a batch.

All: ids (b, n) int64, vocab, size, window=None, whitelist=() -> (b, vocab) bool, True = must not come next.
Rules as in model/ngram.py: with `window` only n-grams that start in the last `window` tokens count; size 1
bans everything said without a window, and nothing with one. Ids beyond the vocabulary are never banned.
Raises ValueError for a negative size, a window below 1, and ids of another shape.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from model.ngram import banned_tokens


def reference(
    ids: Tensor, vocab: int, size: int, window: int | None = None, whitelist: Iterable[int] = ()
) -> Tensor:
    """As the original: every n-gram of the whole sequence, rebuilt on the host. Waits for the device."""
    _check(ids, size, window)
    rows, whitelist = [], set(whitelist)
    for tokens in ids.tolist():
        n, banned = len(tokens), set()
        if size and n >= size and not (size == 1 and window is not None):
            tail = tokens[n - size + 1 :]
            first = 0 if window is None else max(0, n - window)
            grams = ((tokens[i : i + size - 1], tokens[i + size - 1]) for i in range(first, n - size + 1))
            banned = {last for prefix, last in grams if prefix == tail}
        rows.append(banned - whitelist)
    return _as_mask(rows, vocab, ids.device)


def indexed(
    ids: Tensor, vocab: int, size: int, window: int | None = None, whitelist: Iterable[int] = ()
) -> Tensor:
    """model.ngram's index, fed once; as an object it takes one step per token. Waits for the device."""
    _check(ids, size, window)
    whitelist = set(whitelist)
    rows = [banned_tokens(tokens, size, window, whitelist) for tokens in ids.tolist()]
    return _as_mask(rows, vocab, ids.device)


def on_device(
    ids: Tensor, vocab: int, size: int, window: int | None = None, whitelist: Iterable[int] = ()
) -> Tensor:
    """All starts compared at once on the device; never waits."""
    _check(ids, size, window)
    b, n = ids.shape
    banned = torch.zeros(b, vocab, dtype=torch.bool, device=ids.device)
    if size == 0 or vocab == 0 or n < size or (size == 1 and window is not None):
        return banned
    first = 0 if window is None else max(0, n - window)
    starts = n - size + 1 - first
    if starts <= 0:
        return banned
    same = torch.ones(b, starts, dtype=torch.bool, device=ids.device)
    for offset in range(size - 1):  # size is 20 or so: fewer launches than comparing every gram by itself
        at = first + offset
        same &= ids[:, at : at + starts] == ids[:, n - size + 1 + offset, None]
    last = ids[:, first + size - 1 : first + size - 1 + starts].long()
    inside = last.clamp(0, vocab - 1)
    same &= last == inside
    # Counts, not flags: two starts may name one token. fp32, because an NPU adds integers on its AI CPU.
    said = torch.zeros(b, vocab, dtype=torch.float32, device=ids.device).scatter_add_(1, inside, same.float())
    banned = said > 0
    allowed = [token for token in whitelist if 0 <= token < vocab]
    if allowed:
        banned[:, torch.tensor(allowed, device=ids.device)] = False
    return banned


def _check(ids: Tensor, size: int, window: int | None) -> None:
    if ids.dim() != 2 or ids.is_floating_point():
        raise ValueError(f"ngram_guard: whole numbers (b, n) are wanted, got {tuple(ids.shape)} {ids.dtype}")
    if size < 0 or (window is not None and window < 1):
        raise ValueError(
            f"ngram_guard: a size from 0 (off) on and a window from 1 on are wanted, got {size} and {window}"
        )


def _as_mask(rows: list[set[int]], vocab: int, device: torch.device) -> Tensor:
    mask = torch.zeros(len(rows), vocab, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        mask[row, [token for token in tokens if 0 <= token < vocab]] = True
    return mask.to(device)
