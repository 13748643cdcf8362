"""The pages of a batch: each sample holds one page, or a list of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from torch import Tensor

Page = tuple[Tensor, Tensor]  # crops (p, 3, t, t) or zeros, global view (1, 3, S, S)
Sample = Union[Page, Sequence[Page]]  # noqa: UP007 (Python 3.10 evaluates it)
Grid = tuple[int, int]  # tiles across, down


def pages_of(sample: Sample) -> list[Page]:
    """The pages of one sample."""
    pages: list[Any] = list(sample)
    return [(pages[0], pages[1])] if pages and isinstance(pages[0], Tensor) else pages


def by_sample(
    images: Sequence[Sample], spatial_crop: Tensor | Sequence | None
) -> list[list[tuple[Page, Grid]]]:
    """For every sample its pages with their grids.

    spatial_crop: per sample [wide, high], or a list of these with one per page; None: no tiles.

    Raises ValueError if the numbers of pages and grids differ.
    """
    if spatial_crop is None:
        return [[(page, (1, 1)) for page in pages_of(sample)] for sample in images]
    if len(spatial_crop) != len(images):
        raise ValueError(f"images_spatial_crop has {len(spatial_crop)} entries for {len(images)} samples")
    samples = []
    for i, (sample, crop) in enumerate(zip(images, spatial_crop, strict=True)):
        pages = pages_of(sample)
        grids = torch.as_tensor(_plain(crop)).reshape(-1, 2).tolist()
        if len(grids) != len(pages):
            raise ValueError(
                f"sample {i}: {len(pages)} pages, but {len(grids)} grids in images_spatial_crop; "
                "give [wide, high] for each page"
            )
        samples.append([(page, (w, h)) for page, (w, h) in zip(pages, grids, strict=True)])
    return samples


def _plain(crop):
    """A grid, or a list of grids, without tensors inside lists."""
    if isinstance(crop, Tensor):
        return crop.tolist()
    return [_plain(each) if isinstance(each, (Tensor, list, tuple)) else int(each) for each in crop]
