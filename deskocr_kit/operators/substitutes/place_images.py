"""The vectors of a page into their places among the token embeddings.

All: embeds (b, n, d), mask (b, n) bool, source (m, d) -> (b, n, d), a new tensor in which the rows that mask
marks are those of source, in row-major order. A mask of (1, n) is one for the whole batch; without a batch it
is embeds (n, d), mask (n). `allow_extra=True` drops the rows that nobody asked for, as the original does
silently.

The mask may lie on the host: then numbers are compared at no cost. Raises Mismatch: fewer rows than places,
more rows than places (unless allowed), dtypes or shapes that do not fit. `cumsum_where` with a mask on a
device cannot know; it never waits, and puts NaN where a row was missing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model import slots

from .masked_scatter import countable, take_in_order
from .mismatch import Mismatch, same_dtype


def reference(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """torch's masked_scatter. With a mask on a device: one wait, to compare the numbers."""
    mask = _check(
        "reference", embeds, mask, source, allow_extra, count=False
    )  # the numbers are its own affair
    return slots.place_images(embeds, mask, source[: int(mask.sum())] if allow_extra else source)


def cpu_fallback(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """The method that the mission names, made right: everything to the host, scatter there, back again."""
    mask = _check("cpu_fallback", embeds, mask, source, allow_extra, count=True)
    out = embeds.cpu().masked_scatter(mask.cpu()[..., None], source.cpu())
    return out.to(embeds.device)


def cumsum_where(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """On the device, never waiting: a running count of the places says which row each of them takes."""
    mask = _check("cumsum_where", embeds, mask, source, allow_extra, count=countable(mask))
    if embeds.numel() == 0:
        return embeds.clone()
    rows = take_in_order(mask, source, embeds.device).view_as(embeds)
    return torch.where(mask.to(embeds.device)[..., None], rows, embeds)


def index_copy(embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool = False) -> Tensor:
    """Row numbers from the host, one copy of rows. Waits once where the mask lies on a device."""
    mask = _check("index_copy", embeds, mask, source, allow_extra, count=countable(mask))
    places = mask.reshape(-1).nonzero()[:, 0]
    if not countable(mask):
        _compare("index_copy", len(places), source, allow_extra)  # nonzero has waited already
    if embeds.numel() == 0:
        return embeds.clone()
    flat = embeds.reshape(-1, embeds.shape[-1])
    return flat.index_copy(0, places.to(embeds.device), source[: len(places)]).view(embeds.shape)


def _check(who: str, embeds: Tensor, mask: Tensor, source: Tensor, allow_extra: bool, count: bool) -> Tensor:
    """The mask in the shape of embeds' rows; everything that can be said before the work."""
    same_dtype(f"place_images ({who})", embeds=embeds, source=source)
    if mask.dtype != torch.bool:
        raise Mismatch(f"place_images ({who}): the mask must be bool, got {mask.dtype}")
    if embeds.dim() not in (2, 3) or source.dim() != 2 or source.shape[1] != embeds.shape[-1]:
        raise Mismatch(
            f"place_images ({who}): embeds (b, n, d) and source (m, d) wanted, got {tuple(embeds.shape)} "
            f"and {tuple(source.shape)}"
        )
    rows = embeds.shape[:-1]
    if mask.dim() != len(rows) or any(m not in (1, n) for m, n in zip(mask.shape, rows, strict=True)):
        raise Mismatch(
            f"place_images ({who}): mask {tuple(mask.shape)} for embeds of {tuple(embeds.shape)}; one value "
            "per row is wanted, (b, n): take mask[..., 0] of one that has a last dimension"
        )
    mask = mask.expand(rows)
    if count:
        _compare(who, int(mask.sum()), source, allow_extra)
    return mask


def _compare(who: str, places: int, source: Tensor, allow_extra: bool) -> None:
    if len(source) < places or (len(source) > places and not allow_extra):
        raise Mismatch(f"place_images ({who}): {len(source)} image rows for {places} places in the text")
