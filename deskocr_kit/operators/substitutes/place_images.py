"""Put the vectors of a page into their places among the token embeddings.

Signature of all: embeds (b, n, d), mask (b, n) bool, source (m, d) -> (b, n, d), a new tensor in which the
rows that mask marks are those of source, in row-major order. A mask (1, n) holds for the whole batch. Without
a batch the shapes are embeds (n, d) and mask (n). `allow_extra=True` drops rows of source without a place, as
the official model does silently.

The mask may be on the host: then the counts are compared at no cost. Raises Mismatch for fewer rows than
places, more rows than places (unless allowed), and dtypes or shapes that do not fit. `cumsum_where` cannot
compare the counts if the mask is on a device; it never waits, and puts NaN where a row is missing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model import slots

from .masked_scatter import countable, take_in_order
from .mismatch import Mismatch, same_dtype


def reference(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """torch's masked_scatter. With a mask on a device it waits once, to compare the counts."""
    mask = check(
        "reference", embeds, mask, source, allow_extra, count=False
    )  # the reference compares the counts itself
    return slots.place_images(embeds, mask, source[: int(mask.sum())] if allow_extra else source)


def cpu_fallback(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """The original project's method (docs/background.md), corrected: scatter on the host, copy back."""
    mask = check("cpu_fallback", embeds, mask, source, allow_extra, count=True)
    out = embeds.cpu().masked_scatter(mask.cpu()[..., None], source.cpu())
    return out.to(embeds.device)


def cumsum_where(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """On the device, without a wait: a cumulative sum over the mask gives the row for each place."""
    mask = check("cumsum_where", embeds, mask, source, allow_extra, count=countable(mask))
    if embeds.numel() == 0:
        return embeds.clone()
    rows = take_in_order(mask, source, embeds.device).view_as(embeds)
    return torch.where(mask.to(embeds.device)[..., None], rows, embeds)


def index_copy(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """Row numbers from the host, one copy of rows. Waits once if the mask is on a device."""
    mask = check("index_copy", embeds, mask, source, allow_extra, count=countable(mask))
    places = mask.reshape(-1).nonzero()[:, 0]
    if not countable(mask):
        _compare("index_copy", len(places), source, allow_extra)  # nonzero has already waited
    if embeds.numel() == 0:
        return embeds.clone()
    flat = embeds.reshape(-1, embeds.shape[-1])
    return flat.index_copy(0, places.to(embeds.device), source[: len(places)]).view(embeds.shape)


def check(who: str, embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool, count: bool) -> Tensor:
    """The mask expanded to the rows of embeds. Raises Mismatch for arguments that do not fit."""
    same_dtype(f"place_images ({who})", embeds=embeds, source=source)
    if mask.dtype != torch.bool:
        raise Mismatch(f"place_images ({who}): the mask must be bool, got {mask.dtype}")
    if embeds.dim() not in (2, 3) or source.dim() != 2 or source.shape[1] != embeds.shape[-1]:
        raise Mismatch(
            f"place_images ({who}): expected embeds (b, n, d) and source (m, d), got {tuple(embeds.shape)} "
            f"and {tuple(source.shape)}"
        )
    rows = embeds.shape[:-1]
    if mask.dim() != len(rows) or any(m not in (1, n) for m, n in zip(mask.shape, rows, strict=True)):
        raise Mismatch(
            f"place_images ({who}): mask {tuple(mask.shape)} for embeds of {tuple(embeds.shape)}; expected "
            "one value per row, (b, n): take mask[..., 0] of a mask with a last dimension"
        )
    mask = mask.expand(rows)
    if count:
        _compare(who, int(mask.sum()), source, allow_extra)
    return mask


def _compare(who: str, places: int, source: Tensor, allow_extra: bool) -> None:
    if len(source) < places or (len(source) > places and not allow_extra):
        raise Mismatch(f"place_images ({who}): {len(source)} image rows for {places} places in the text")
