"""Copy rows: each row of the result comes from one of two tables."""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import launch, power_of_two


@triton.jit
def place_rows_kernel(base, source, chosen, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    index = tl.load(chosen + row)
    from_base = tl.load(base + row * width + at, mask=at < tl.where(index < 0, width, 0), other=0.0)
    from_source = tl.load(source + index * width + at, mask=at < tl.where(index < 0, 0, width), other=0.0)
    tl.store(out + row * width + at, tl.where(index < 0, from_base, from_source), mask=at < width)


def place_rows(base: Tensor, source: Tensor, chosen: Tensor) -> Tensor:
    """base (n, d), source (m, d), chosen (n) int32: the row of `source`, -1 for that of `base` -> (n, d)."""
    out = torch.empty_like(base)
    n, width = base.shape
    launch(place_rows_kernel, (n,), base, source, chosen, out, width, BLOCK=power_of_two(width))
    return out
