"""A KV cache of constant size: the prompt, and the last generated tokens in a ring behind it.

Unlimited-OCR was trained with this attention (reference sliding window): a generated token sees the whole
prompt and the last `window` generated tokens, itself included. So a key that has left the window is never
needed again, and the next one takes its place. Attention does not depend on the order of the keys, and keys
are rotated before they are stored, so the positions may go on counting.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .config import DecoderConfig
from .decoder import KVCache


class RingCache(KVCache):
    """Room for the prompt and one window.

    prompt: positions of the prompt, padding included; one pass fills them. new: maximum of generated tokens.
    """

    def __init__(
        self, c: DecoderConfig, batch: int, prompt: int, new: int, dtype: torch.dtype, device: torch.device
    ):
        if c.window is None:
            raise ValueError("RingCache: the decoder of this config has no window; use KVCache")
        self.prompt, self.window = prompt, min(c.window, new)
        super().__init__(c, batch, prompt + self.window, dtype, device, positions=prompt + new)

    def slot(self, n: int = 1) -> int:
        """Where the next n positions are written: the prompt in one piece, then one token after another."""
        if self.filled < self.prompt:
            if self.filled + n > self.prompt:
                raise ValueError(f"KV cache: {self.filled + n} positions for a prompt of {self.prompt}")
            return self.filled
        if n != 1:
            raise ValueError(f"KV cache: {n} generated tokens at once; a ring takes one at a time")
        return self.prompt + (self.filled - self.prompt) % self.window

    def visible(self, n: int = 1) -> int:
        return min(self.filled + n, self.length)


def make_cache(
    c: DecoderConfig, batch: int, prompt: int, new: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """The cache for a prompt and at most `new` generated tokens: a ring if the decoder has a window."""
    if c.window is None:
        return KVCache(c, batch, prompt + new, dtype, device)
    return RingCache(c, batch, prompt, new, dtype, device)


def window_mask(attended: Tensor, prompt: int, window: int) -> Tensor:
    """The same visibility as a mask over a whole sequence, for one pass without a cache.

    attended: (b, n) bool, False on padding -> (b, 1, n, n) bool, True: attend. Padding attends to itself.
    """
    n = attended.shape[1]
    at = torch.arange(n, device=attended.device)
    near = (at[None] < prompt) | (at[None] > at[:, None] - window)
    seen = (at[None] <= at[:, None]) & near & attended[:, None]
    return (seen | torch.eye(n, dtype=torch.bool, device=attended.device))[:, None]
