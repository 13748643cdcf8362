"""Convert a matrix to small integers and scales, symmetrically, and back.

w ≈ q * scale, with one scale per output row (group 0) or per `group` columns of a row. The scale is
max|w| / 127 (8 bits) or max|w| / 7 (4 bits), so nothing is clipped, and the rounding error is at most half a
scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = {8: 127, 4: 7}  # symmetric: -128 and -8 stay unused, so that no sign is favoured
GROUP = {8: 0, 4: 32}  # columns that share a scale; 0: the whole row, for which 7 steps are too few


@dataclass(frozen=True)
class Packed:
    """A quantised matrix (out, in), or a stack of them (e, out, in).

    values: int8 (…, out, in); 4 bits: uint8 (…, out, padded in / 2), two columns per byte, the even one low.
    scales: fp32 (…, out, groups), for activations of any dtype: fp16 would round the scales of small weights
    to few bits or to zero.
    """

    values: Tensor
    scales: Tensor
    columns: int
    bits: int
    group: int

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int | Tensor) -> Packed:
        """One matrix of a stack, or those with some ids; the others are not unpacked."""
        take = (lambda t: t.index_select(0, index)) if isinstance(index, Tensor) else (lambda t: t[index])
        return replace(self, values=take(self.values), scales=take(self.scales))

    def integers(self) -> Tensor:
        """The integers, int8 (…, out, in)."""
        if self.bits == 8:
            return self.values
        pairs = torch.stack((self.values & 15, self.values >> 4), -1).flatten(-2)
        return pairs[..., : self.columns].to(torch.int8) - 8

    def steps(self) -> Tensor:
        """The scale of every column, fp32 (…, out, in), or (…, out, 1) for whole rows."""
        if not self.group:
            return self.scales
        return self.scales.repeat_interleave(self.group, -1)[..., : self.columns]

    def unpack(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The matrix (…, out, in) in `dtype`; multiplied in fp32 and rounded once."""
        return (self.integers() * self.steps()).to(dtype)


def pack(weight: Tensor, bits: int = 8, group: int | None = None) -> Packed:
    """Quantise a matrix (out, in) or a stack (e, out, in).

    Args:
        bits: 8 or 4.
        group: columns that share a scale; 0: the whole row; None: the default for these bits.

    Raises:
        ValueError: other bits, a group below 0, or weights that are not finite.
    """
    if bits not in LARGEST:
        raise ValueError(f"bits={bits}: expected one of {', '.join(map(str, LARGEST))}")
    group = GROUP[bits] if group is None else group
    if group < 0:
        raise ValueError(f"group={group}: expected a number of columns, or 0 for the whole row")
    if weight.dim() == 3:  # one expert at a time: no fp32 copy of all
        each = [pack(w, bits, group) for w in weight]
        values, scales = torch.stack([p.values for p in each]), torch.stack([p.scales for p in each])
        return Packed(values, scales, weight.shape[-1], bits, group)
    w = weight.detach().float()
    if not torch.isfinite(w).all():
        raise ValueError("weights contain NaN or Inf")
    out, columns = w.shape
    width = group or columns
    w = F.pad(w, (0, -columns % width)).view(out, -1, width)  # o groups g
    scales = w.abs().amax(-1) / LARGEST[bits]
    tiny = torch.finfo(torch.float32).tiny
    q = (w / scales.clamp_min(tiny)[..., None]).round().clamp(-LARGEST[bits], LARGEST[bits])
    q = q.to(torch.int8).view(out, -1)[:, :columns]
    if bits == 4:
        q = F.pad(q + 8, (0, columns % 2), value=8).to(torch.uint8)  # 1 … 15; the padding means zero
        q = q[:, 0::2] | (q[:, 1::2] << 4)
    return Packed(q.contiguous(), scales, columns, bits, group)
