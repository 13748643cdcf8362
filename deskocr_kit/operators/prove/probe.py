"""The tests of every substitute: the model's own calls, and calls that break careless code.

A probe makes fp32 arguments on the CPU from a seeded generator. `real` probes have the shapes of the
checkpoint and are timed; the others are small, and only their results are checked. Heads are independent of
each other, so the attention over a whole map is probed with two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from model.config import DeepseekOCRConfig
from model.modes import get_mode, modes_of
from model.tiling import count_image_tokens

Make = Callable[[torch.Generator], tuple]


@dataclass(frozen=True)
class Probe:
    """One call. `call(function, *args)` gives the tensor to compare; `wide` is the reference's dtype."""

    slot: str
    name: str
    make: Make
    real: bool = False
    kwargs: dict = field(default_factory=dict)
    raises: bool = False  # the call must raise
    call: Callable | None = None
    wide: torch.dtype = torch.float64
    host: tuple[int, ...] = ()  # arguments that stay on the host
    writes: bool = False  # the call writes into its arguments: each candidate gets copies


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint that calls depend on. `view` is the side of the global view in pixels."""

    config: DeepseekOCRConfig
    view: int
    prompt: int  # tokens of a prompt with its page
    vision: int  # the part of `prompt` that is vectors of the page

    @classmethod
    def of(cls, config: DeepseekOCRConfig) -> Sizes:
        """For official sizes: a page as one 1024 view and 2 x 3 tiles; for small ones: the tiny mode."""
        official = config.checkpoint
        if config.decoder.width >= 1024:
            mode, grid, text = get_mode("gundam", official), (2, 3), 10
        else:
            smallest = min(modes_of(official).values(), key=lambda mode: mode.base_size)
            mode, grid, text = smallest, (1, 1), 10
        vision = count_image_tokens(mode, grid)
        return cls(config, mode.base_size, vision + text, vision)


def rand(g: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=g) * scale
