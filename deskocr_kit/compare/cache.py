"""Compare the keys and values of two models after the same prompt and the same decoded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from model.generation import decode, prefill
from model.network import padding
from model.ring import make_cache

from ..display.table import text_table
from .metrics import Closeness, closeness
from .show import html_table


@dataclass(frozen=True)
class CacheRow:
    """One layer. `first` is the first position with a key or value out of tolerance, or None."""

    layer: int
    keys: Closeness
    values: Closeness
    first: int | None


class CacheTable(list):
    """Rows by layer; `first` is the row of the first wrong layer."""

    @property
    def first(self) -> CacheRow | None:
        return next((r for r in self if r.first is not None), None)

    def _table(self):
        head = ("verdict", "layer", "keys", "values", "first position")
        rows = [
            [
                "ok" if r.first is None else "WRONG",
                str(r.layer),
                f"{r.keys.relative:.1e}",
                f"{r.values.relative:.1e}",
            ]
            + ["" if r.first is None else str(r.first)]
            for r in self
        ]
        return head, rows

    def __repr__(self) -> str:
        return text_table(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table())


@torch.no_grad()
def fill_cache(model, inputs: dict, new_ids: Sequence[int] = ()):
    """Prefill with the inputs of forward, decode `new_ids` one by one and return the KV cache."""
    names = ("input_ids", "images", "images_seq_mask", "images_spatial_crop")
    embeds = model.embed(**{name: inputs.get(name) for name in names})
    b, n, _ = embeds.shape
    mask, positions = padding(inputs.get("attention_mask"), (b, n), model.device)
    cache = make_cache(model.config.decoder, b, n, max(1, len(new_ids)), embeds.dtype, model.device)
    prefill(model, embeds, positions, mask, cache)
    position = positions[:, -1:]
    seen = None
    if mask is not None:
        seen = torch.ones(b, 1, 1, cache.length, dtype=torch.bool, device=model.device)
        seen[:, 0, 0, :n] = inputs["attention_mask"].to(model.device).bool()
    for token in new_ids:
        position = position + 1
        look = None if seen is None else seen[..., : cache.visible()]
        decode(model, torch.full((b, 1), token, device=model.device), position, look, cache)
    return cache


def compare_caches(
    reference, candidate, inputs: dict, new_ids: Sequence[int] = (), rtol: float = 1e-2
) -> CacheTable:
    """Compare keys and values, shapes (b, h, position, k), layer by layer.

    A position is out of tolerance if a key or value differs by more than `rtol` times the largest value of
    its head.
    """
    ours, theirs = (fill_cache(m, inputs, new_ids) for m in (candidate, reference))
    rows = CacheTable()
    for layer, (a, b) in enumerate(zip(ours.data.cpu().float(), theirs.data.cpu().float(), strict=True)):
        limit = rtol * b.abs().amax((-1, -2), keepdim=True)
        away = ~((a - b).abs() <= limit)  # so that NaN counts
        positions = away.any(-1).flatten(0, -2).any(0).nonzero()
        first = int(positions[0]) if len(positions) else None
        rows.append(CacheRow(layer, closeness(a[0], b[0]), closeness(a[1], b[1]), first))
    return rows
