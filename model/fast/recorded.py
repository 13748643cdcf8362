"""The step over memory that never moves, so that a device can record it once and replay it for every token.

A replay costs the host one call in place of some 240. It reads the whole cache instead of its filled part, so
it pays where launches cost more than that: a device that waits for its host, a cache not much longer than
what is said. Off unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from model.fast.step import Step

Run = Callable[[], Tensor]


class Recorded(Step):
    """As Step. record: from a function without arguments to one that repeats it on the same memory.

    visible (b, 1, 1, length) bool: which places of the prompt may be looked at; positions (b, 1): of the next
    token. Where an implementation in the slots waits for the device nothing can be recorded (`moe` with more
    pairs than experts does).
    """

    def __init__(
        self, model, cache, batch: int, visible: Tensor, positions: Tensor, record: Callable[[Run], Run]
    ):
        super().__init__(model, cache, batch)
        self.put, self.update = self.put_there, self.update_there
        self.token, self.position = torch.zeros_like(positions), positions.clone()
        self.visible = visible.clone()
        self.visible[..., cache.filled :] = False
        self.place = positions.new_full((1,), cache.filled)
        self.record, self.replay = record, None

    def __call__(self, token: Tensor, positions=None, mask=None) -> Tensor:
        """token (b, 1) -> logits (b, vocab), valid until the next call. Positions and mask are kept here."""
        self.token.copy_(token)
        self.visible.index_fill_(3, self.place, True)
        if self.replay is None:  # recording may run the step more than once: it writes the same again
            self.replay = self.record(lambda: self.run(self.token, self.position, self.visible))
        logits = self.replay()
        self.place.add_(1)
        self.position.add_(1)
        self.cache.advance(1)
        return logits

    def put_there(self, i: int, kv: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.data[i].index_copy_(3, self.place, kv).unbind(0)

    def update_there(self, i: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.data[i]
        return keys.index_copy_(2, self.place, k), values.index_copy_(2, self.place, v)
