"""The options of `--engine`. This file imports no torch, so that the help of a command works without it."""

from __future__ import annotations

from dataclasses import dataclass

from ..options import BY_THE_READER, Options, ReadingOptions, option

#: {name of --engine: what reads the pages}. batch/engines.py makes the devices of each.
ENGINES = {"kit": "the kit's own network", "ray": "the same on the devices of a Ray cluster"}


@dataclass(frozen=True)
class EngineOptions(Options):
    """What reads the pages. Raises ValueError for options that do not belong together."""

    engine: str = option(
        "kit",
        "; ".join(f"{name}: {what}" for name, what in ENGINES.items()) + ".",
        choices=ENGINES,
        key=BY_THE_READER,
    )


@dataclass(frozen=True)
class ServedOptions(EngineOptions, ReadingOptions):
    """All options of commands that read pages with any engine."""
