"""The vision tower of each model of the family: which encoder follows SAM, and the layout of its features.

This file is the only place that knows which encoders there are; the network asks `tower(config)`.

Shape letters: see slots.py. `s` is the side of a square map after SAM, pixels / 64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from .clip import ClipEncoder, fuse
from .config import DeepseekOCRConfig
from .query_encoder import QueryEncoder
from .sam import SamEncoder  # noqa: F401 (re-exported)
from .slots import relative_table, resize_grid  # noqa: F401 (re-exported)


@dataclass(frozen=True)
class Tower:
    """What stands between the SAM map and the projector in one model of the family.

    Args:
        name: the official name of the second encoder below `model.`.
        build: (its config, slots) -> the encoder.
        features: (encoder, SAM map (b, c, s, s)) -> the features for the projector (b, tokens, d).
        layout: (global view, tiles or None, grid, newline or None, separator) -> the tokens of a page.
        newline: whether the model has the vector `image_newline`.
    """

    name: str
    build: Callable[..., nn.Module]
    features: Callable[[Any, Tensor], Tensor]
    layout: Callable[..., Tensor]
    newline: bool


def with_newlines(grid: Tensor, newline: Tensor) -> Tensor:
    """(rows, columns, d) -> (rows * (columns + 1), d) with a newline vector after every row."""
    rows, _, d = grid.shape
    return torch.cat((grid, newline.expand(rows, 1, d)), dim=1).reshape(-1, d)


def layout_rows(
    view: Tensor, tiles: Tensor | None, grid: tuple[int, int], newline: Tensor, separator: Tensor
) -> Tensor:
    """The token sequence of one page: [rows of all tiles as one image][rows of the global view][separator].

    view (s*s, d); tiles (w*h, t*t, d) row-major or None; grid (w, h), width first -> (tokens, d).
    """
    side, d = round(view.shape[0] ** 0.5), view.shape[-1]
    parts = [with_newlines(view.view(side, side, d), newline), separator[None]]
    if tiles is not None:
        w, h = grid
        t = round(tiles.shape[1] ** 0.5)
        whole = tiles.view(h, w, t, t, d).transpose(1, 2).reshape(h * t, w * t, d)
        parts.insert(0, with_newlines(whole, newline))
    return torch.cat(parts)


def layout_queries(
    view: Tensor, tiles: Tensor | None, grid: tuple[int, int], newline: Tensor | None, separator: Tensor
) -> Tensor:
    """The token sequence of one page: [each tile as it comes][global view][separator].

    view (n, d); tiles (w*h, t, d) row-major or None -> (tokens, d).
    """
    parts = [view, separator[None]]
    return torch.cat(parts if tiles is None else [tiles.flatten(0, 1), *parts])


def clip_and_sam(clip: ClipEncoder, sam_map: Tensor) -> Tensor:
    """The features of both encoders side by side."""
    return fuse(clip(sam_map), sam_map)


def queries_only(encoder: QueryEncoder, sam_map: Tensor) -> Tensor:
    return encoder(sam_map)


#: {key in vision_config.width of config.json: the tower}
TOWERS = {
    "clip-l-14-224": Tower("vision_model", ClipEncoder, clip_and_sam, layout_rows, newline=True),
    "qwen2-0-5b": Tower("qwen2_model", QueryEncoder, queries_only, layout_queries, newline=False),
}


def tower(config: DeepseekOCRConfig) -> Tower:
    """The tower of the model that the config describes."""
    return TOWERS[config.checkpoint.encoder_key]
