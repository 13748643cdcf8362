"""The candidates of each slot, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from model import slots
from model.fast import DEFAULTS, moe, norm, position_tables, rel_pos_attention
from model.fast.rotary import rotary_in_place

from ..kernels import launch
from . import attention, conv2d, masked_scatter, npu, place_images, pointwise

#: {slot: {name: implementation}} of the implementations that run on every device, reference first. The
#: last entry is not a slot of this network: `adapt` replaces it in other models (operators/adapt/module.py).
PORTABLE: dict[str, dict[str, Callable]] = {
    "conv2d": {
        "reference": slots.conv2d,
        "unfold_einsum": conv2d.unfold_einsum,
        "patchify": conv2d.patchify,
        "pointwise": conv2d.pointwise,
        "im2row": conv2d.im2row,
    },
    "place_images": {
        "reference": place_images.reference,
        "cpu_fallback": place_images.cpu_fallback,
        "cumsum_where": place_images.cumsum_where,
        "index_copy": place_images.index_copy,
    },
    "rel_pos_attention": {
        "reference": slots.rel_pos_attention,
        "by_size_of_map": rel_pos_attention.by_size_of_map,
        "chunked": rel_pos_attention.chunked,
        "folded_products": rel_pos_attention.folded_products,
        "folded": rel_pos_attention.folded,
    },
    "attention": {"reference": slots.attention, "eager": attention.eager},
    "moe": {
        "reference": slots.moe,
        "auto": moe.auto,
        "in_place": moe.in_place,
        "gathered": moe.gathered,
        "grouped": moe.grouped,
        "grouped_mm": moe.grouped_mm,
    },
    "rms_norm": {
        "reference": slots.rms_norm,
        "by_length": norm.by_length,
        "fused_rms_norm": pointwise.fused_rms_norm,
    },
    "rotary": {
        "reference": slots.rotary,
        "rotary_halves": pointwise.rotary_halves,
        "rotary_in_place": rotary_in_place,
    },
    "swiglu": {"reference": slots.swiglu, "swiglu_in_place": pointwise.swiglu_in_place},
    "gelu": {"reference": slots.gelu, "gelu_erf": pointwise.gelu_erf},
    "quick_gelu": {"reference": slots.quick_gelu, "quick_gelu_silu": pointwise.quick_gelu_silu},
    "resize_grid": {"reference": slots.resize_grid, "cached_grid": position_tables.cached_grid},
    "relative_table": {
        "reference": slots.relative_table,
        "cached_relative_table": position_tables.cached_relative_table,
    },
    **{slot: {"reference": getattr(slots, slot)} for slot in slots.SPANNING},
    "masked_scatter_": {
        "reference": masked_scatter.reference,
        "cpu_fallback": masked_scatter.cpu_fallback,
        "cumsum_where": masked_scatter.cumsum_where,
    },
}

SLOTS = tuple(PORTABLE)


def candidates(slot: str) -> dict[str, Callable]:
    """{name: function} for a slot, "reference" first. Raises ValueError for an unknown slot."""
    if slot not in SLOTS:
        raise ValueError(f"no slot named {slot!r}; choose one of {', '.join(SLOTS)}")
    return PORTABLE[slot] | npu.CANDIDATES.get(slot, {}) | _kernels().get(slot, {})


def _kernels() -> dict[str, dict[str, Callable]]:
    """The kernels in Triton, where they can run: interpreted, or compiled for a device of this machine."""
    if launch.why_not() is not None:
        return {}
    return importlib.import_module(f"{launch.__package__}.candidates").CANDIDATES


def candidate(slot: str, name: str) -> Callable:
    """The candidate `name` of a slot. Raises ValueError, with the known names, for an unknown name."""
    found = candidates(slot)
    if name not in found:
        raise ValueError(f"{slot} has no implementation {name!r}; choose one of {', '.join(found)}")
    return found[name]


def default(slot: str) -> str:
    """The name of the implementation that the network runs without a plan: see model/fast/."""
    found = (name for name, function in candidates(slot).items() if function is DEFAULTS.get(slot))
    return next(found, "reference")
