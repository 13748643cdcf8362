"""`Tensor.masked_scatter_` without the operator: same meaning, views included.

    self.masked_scatter_(mask, source): the places where mask is True take the numbers of source, in order.

What a replacement has to get right, and usually does not: it writes *in place*, so that a row view it was
called on changes its base (a function that returns a new tensor never does); the mask broadcasts to self;
source may be longer, and of any shape; dtypes must agree (`torch.where` would promote silently); a mask must
be bool; no True at all, or an empty source, is no error as long as nothing is asked of it.

Signature of all: f(self, mask, source) -> self, written in place. `out_of_place(f)` makes the other form.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .mismatch import Mismatch, same_dtype

InPlace = Callable[[Tensor, Tensor, Tensor], Tensor]


def reference(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """torch's own operator."""
    return self.masked_scatter_(mask, source)


def cpu_fallback(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The method that the mission names: copy to the host, scatter there, write the result back.

    Right at the price of two copies up and down and a stop of the device. `self.copy_` is what makes it
    right: returning the host's tensor would leave the view's base as it was.
    """
    _check("cpu_fallback", self, mask, source)
    mask, source = mask.cpu(), source.cpu()
    _enough(int(_expand(mask, self).sum()), source.numel())  # torch's own raises when half is written already
    if self.device.type == "cpu":
        return self.masked_scatter_(mask, source)
    return self.copy_(self.detach().cpu().masked_scatter_(mask, source.detach()))


def cumsum_where(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """On the device, without waiting for it: the n-th True takes number n-1 of source, by a running count.

    Whole rows at once where the mask is the same along the last dimension, as DeepSeek-OCR's (n, 1) mask.
    A source that is too short raises where the mask lies on the host. On a device nobody can know without
    waiting: there the places that got nothing become NaN, so that the mistake cannot pass for a result.
    """
    _check("cumsum_where", self, mask, source)
    wide = _expand(mask, self)
    if self.numel() == 0:
        return self
    width = self.shape[-1] if self.dim() else 1
    by_rows = width > 1 and (mask.dim() == 0 or mask.shape[-1] == 1 or wide.stride(-1) == 0)
    if by_rows:
        pieces = source.reshape(-1)[: source.numel() // width * width].view(-1, width)
        picked = take_in_order(wide[..., 0], pieces, self.device)
    else:
        picked = take_in_order(wide, source.reshape(-1), self.device)
    picked = picked.view(self.shape)
    wide = wide.to(self.device)
    if torch.is_grad_enabled() and (self.requires_grad or source.requires_grad):
        return self.copy_(torch.where(wide, picked, self))
    return torch.where(wide, picked, self, out=self)  # each number is read before it is written over


def out_of_place(in_place: InPlace) -> InPlace:
    """`Tensor.masked_scatter` from `Tensor.masked_scatter_`: broadcasts both, changes neither."""

    def masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.shape, mask.shape)
        return in_place(self.expand(shape).clone(memory_format=torch.contiguous_format), mask, source)

    return masked_scatter


def take_in_order(mask: Tensor, pieces: Tensor, device: torch.device) -> Tensor:
    """For every place of mask (flattened, row-major) the piece that belongs there if it is True.

    pieces (m, …) on `device` -> (places, …); places that are False get any piece. Counts in int32: int64
    sums run on an NPU's AI CPU, and 2**31 places is more than any page has. Never waits for the device.
    """
    known = countable(mask)  # then counting is free, and an error can be raised
    flat = mask.reshape(-1).to(device)
    if known:
        _enough(int(mask.sum()), len(pieces))
    if len(pieces) == 0:
        filler = torch.zeros((), dtype=pieces.dtype, device=device)
        if not known and pieces.dtype.is_floating_point:
            filler = filler + torch.nan
        return filler.expand(flat.shape + pieces.shape[1:])
    count = flat.to(torch.int32).cumsum(0, dtype=torch.int32) - 1
    picked = pieces.index_select(0, count.clamp(0, len(pieces) - 1))
    if not known and pieces.dtype.is_floating_point:
        short = (count >= len(pieces)).view(-1, *[1] * (pieces.dim() - 1))
        picked = picked.masked_fill(short, torch.nan)
    return picked


def countable(mask: Tensor) -> bool:
    """Whether the places can be counted without a wait: the mask lies on the host, and has numbers at all."""
    return mask.device.type == "cpu" and not isinstance(mask, FakeTensor)


def _enough(places: int, pieces: int) -> None:
    if places > pieces:
        raise Mismatch(f"masked_scatter: {places} places are True but the source fills only {pieces}")


def _expand(mask: Tensor, self: Tensor) -> Tensor:
    try:
        return mask.expand(self.shape)
    except RuntimeError as error:
        raise Mismatch(
            f"masked_scatter: mask {tuple(mask.shape)} does not broadcast to {tuple(self.shape)}"
        ) from error


def _check(who: str, self: Tensor, mask: Tensor, source: Tensor) -> None:
    same_dtype(f"masked_scatter ({who})", self=self, source=source)
    if mask.dtype != torch.bool:
        raise Mismatch(f"masked_scatter ({who}): the mask must be bool, got {mask.dtype}")
