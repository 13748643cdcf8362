"""What the network runs by default: implementations from plain operators that are never worse than the
references in slots.py, on any device.

    moe                chosen experts only, and no wait for the device while decoding
    rel_pos_attention  no (n, n) bias: 805 MB less for one view of 1024 pixels
    rms_norm           six operators for eight, in place; two while decoding
    rotary             three operators for five; one while decoding
    resize_grid, relative_table   resized once per size

The references stay what proofs compare with: `model.use_plan(references())` runs them. Where the references
are as good (convolution, activations) they are the default. One token at a time goes through step.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from model.fast.moe import by_number_of_tokens
from model.fast.norm import rms_norm
from model.fast.position_tables import grid_once, relative_once
from model.fast.rel_pos_attention import by_size_of_map
from model.fast.rotary import rotary_in_place
from model.slots import Slots

DEFAULTS: dict[str, Callable] = {
    "moe": by_number_of_tokens,
    "rel_pos_attention": by_size_of_map,
    "rms_norm": rms_norm,
    "rotary": rotary_in_place,
    "resize_grid": grid_once,
    "relative_table": relative_once,
}


def references() -> dict[str, Callable]:
    """{slot: reference} for every slot: the network in its plainest form, one expert after the other. What it
    computes is the original's; how it starts and waits is not (that is deskocr_kit/baselines/original.py).
    """
    return asdict(Slots())
