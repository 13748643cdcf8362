"""Default implementations of the slots, made of plain operators; no worse than the references anywhere.

    moe                chosen experts only, and no synchronisation while decoding
    rel_pos_attention  no (n, n) bias: 805 MB less for one view of 1024 pixels
    rms_norm           six operators instead of eight, in place; two while decoding
    rotary             three operators instead of five; one while decoding
    resize_grid, relative_table   resized once per size

Proofs compare with the references in slots.py; `model.use_plan(references())` runs them. Where a reference is
as good (convolution, activations), it is the default. step.py decodes one token at a time.
"""

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
