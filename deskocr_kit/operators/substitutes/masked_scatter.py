"""`Tensor.masked_scatter_` without the operator: the same results, also for views.

    self.masked_scatter_(mask, source): where mask is True, self gets the numbers of source, in order.

Replacements often get these points wrong. The operator writes *in place*, so calling it on a row view changes
the base of the view (a function that returns a new tensor does not). The mask broadcasts to self. source may
be longer than needed, and of any shape. dtypes must agree (`torch.where` would promote silently). The mask
must be bool. A mask without any True is no error, nor is an empty source for such a mask.

Signature of all: f(self, mask, source) -> self, written in place. `out_of_place(f)` is the other form.
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
    """The original project's method (docs/background.md): copy to the host, scatter there, write back.

    It is correct, but costs copies in both directions and a wait for the device. `self.copy_` is necessary:
    returning the host's tensor would leave the base of the view unchanged.
    """
    _check("cpu_fallback", self, mask, source)
    mask, source = mask.cpu(), source.cpu()
    _enough(int(_expand(mask, self).sum()), source.numel())  # torch's own raises only after it wrote a part
    if self.device.type == "cpu":
        return self.masked_scatter_(mask, source)
    return self.copy_(self.detach().cpu().masked_scatter_(mask, source.detach()))


def cumsum_where(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """On the device, without a wait: the n-th True gets element n-1 of source, by a cumulative sum.

    Copies whole rows if the mask is constant along the last dimension, such as DeepSeek-OCR's (n, 1) mask.
    A source that is too short raises Mismatch if the mask is on the host. On a device this cannot be checked
    without a wait: there the places without a source element become NaN, so that the error is visible.
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
    return torch.where(wide, picked, self, out=self)  # each number is read before it is overwritten


def out_of_place(in_place: InPlace) -> InPlace:
    """`Tensor.masked_scatter` from `Tensor.masked_scatter_`: broadcasts self and mask, changes neither."""

    def masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(self.shape, mask.shape)
        return in_place(self.expand(shape).clone(memory_format=torch.contiguous_format), mask, source)

    return masked_scatter


def take_in_order(mask: Tensor, pieces: Tensor, device: torch.device) -> Tensor:
    """For every place of mask (flattened, row-major) the piece of `pieces` that it gets if it is True.

    pieces (m, …) on `device` -> (places, …); places that are False get an arbitrary piece. Counts in int32:
    int64 sums run on an NPU's AI CPU, and no page has 2**31 places. Never waits for the device.
    """
    known = countable(mask)  # then counting needs no wait, and an error can be raised
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
    """Whether the places can be counted without a wait: the mask is on the host, and has values."""
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
