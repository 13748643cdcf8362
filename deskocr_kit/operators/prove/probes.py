"""Every probe, slot by slot."""

from __future__ import annotations

from .probe import Probe, Sizes
from .probes_decode import choose, decode_layer
from .probes_joined import add_norms, mixture, sam_attention
from .probes_language import attention, elementwise, moe
from .probes_vision import conv2d, masked_scatter, place_images, rel_pos_attention, tables

__all__ = ["Probe", "Sizes", "probes"]


def probes(sizes: Sizes) -> list[Probe]:
    """Every probe, slot by slot."""
    return [
        *conv2d(sizes), *place_images(sizes), *masked_scatter(sizes), *rel_pos_attention(sizes),
        *attention(sizes), *moe(sizes), *elementwise(sizes), *tables(sizes),
        *decode_layer(sizes), *choose(sizes), *add_norms(sizes), *sam_attention(sizes), *mixture(sizes),
    ]  # fmt: skip
