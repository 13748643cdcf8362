"""What the network runs in a slot without a plan, and the references beside it."""

from __future__ import annotations

from collections.abc import Callable

from ..slots import Slots
from .moe import auto
from .norm import by_length
from .position_tables import cached_grid, cached_relative_table
from .rel_pos_attention import by_size_of_map
from .rotary import rotary_in_place

DEFAULTS: dict[str, Callable] = {
    "moe": auto,
    "rel_pos_attention": by_size_of_map,
    "rms_norm": by_length,
    "rotary": rotary_in_place,
    "resize_grid": cached_grid,
    "relative_table": cached_relative_table,
}


def references() -> dict[str, Callable]:
    """{slot: reference} for every slot: the network in its simplest form, one expert after another.

    It computes what the original computes, but its launches and waits differ from the original's.
    """
    return dict(vars(Slots()))
