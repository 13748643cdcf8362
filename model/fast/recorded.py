"""The decode step over fixed memory, so that a device can record it once and replay it for every token.

A replay costs the host one call instead of about 240. It reads the whole cache instead of the filled part.
So it pays where launches cost more than that: the device waits for its host, and the cache is not much longer
than the text. Off by default.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .step import Step

Run = Callable[[], Tensor]


class Recorded(Step):
    """A `Step` that is recorded at its first call and replayed afterwards.

    It cannot be recorded if an implementation in the slots waits for the device (`moe` does, with more pairs
    than experts).

    Args:
        visible: (b, 1, 1, places of the cache) bool, the positions of the prompt that may be attended to.
        positions: (b, 1), the positions of the next token.
        record: takes a function without arguments, returns a function that repeats it on the same memory.
    """

    def __init__(
        self, model, cache, batch: int, visible: Tensor, positions: Tensor, record: Callable[[Run], Run]
    ):
        super().__init__(model, cache, batch)
        self.put, self.update = self.put_at_index, self.update_at_index  # type: ignore[assignment]  # `i` for `layer`
        self.token, self.position = torch.zeros_like(positions), positions.clone()
        self.visible = visible.clone()
        self.visible[..., cache.filled :] = False
        self.index = positions.new_zeros(1)  # the place in the cache that the next token takes
        self.record, self.replay = record, None

    def __call__(self, token: Tensor, positions=None, mask=None) -> Tensor:
        """token (b, 1) -> logits (b, vocab). Positions and mask are ignored."""
        self.token.copy_(token)
        self.index.fill_(self.cache.slot())
        self.visible.index_fill_(3, self.index, True)
        if self.replay is None:  # recording may run the step several times; each run writes the same values
            self.replay = self.record(  # type: ignore[assignment]
                lambda: self.run(self.token, self.position, self.visible)
            )
        # The next replay writes to the same memory.
        logits = self.replay().clone()  # type: ignore[misc]
        self.position.add_(1)
        self.cache.advance(1)
        return logits

    def place(self) -> Tensor:
        return self.index

    def visible_places(self) -> int:
        return self.cache.length  # a recording has fixed sizes; the mask hides what is not in use

    def put_at_index(self, i: int, kv: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.data[i].index_copy_(3, self.index, kv).unbind(0)  # type: ignore[return-value]

    def update_at_index(self, i: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.cache.data[i]
        return keys.index_copy_(2, self.index, k), values.index_copy_(2, self.index, v)
