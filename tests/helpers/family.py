"""Tiny random models of the family, and inputs for them."""

from __future__ import annotations

import torch

from deskocr_kit.course.tiny_family import IMAGE, SAM, SIZES, tiny_config  # noqa: F401 (used by docs)
from model import DeepseekOCRConfig
from model.official import CHECKPOINTS
from model.tiling import Mode, count_image_tokens

NAMES = list(CHECKPOINTS)
Grid = tuple[int, int]


def tiny(name: str, window: int | None = None, **more) -> DeepseekOCRConfig:
    """A tiny config of the family. window: of Unlimited-OCR."""
    return tiny_config(name, **({} if window is None else {"sliding_window": window}), **more)


def small_mode(config: DeepseekOCRConfig) -> Mode:
    """Views of 256 pixels and tiles of 192, for tests."""
    return Mode("test", 256, 192, True, config.checkpoint)


def batch(
    config: DeepseekOCRConfig, samples: list[list[Grid]], seed: int = 1, mode: Mode | None = None
) -> dict:
    """Random inputs of `generate`, left-padded: for each sample the tile grids of its pages, [] for text."""
    g, mode = torch.Generator().manual_seed(seed), mode or small_mode(config)
    rows, images, crops = [], [], []
    for grids in samples:
        ids, pages = [config.bos_token_id], []
        for w, h in grids:
            ids += [IMAGE] * count_image_tokens(mode, (w, h))
            ids += torch.randint(3, 290, (2,), generator=g).tolist()
            tiles = torch.randn(w * h, 3, mode.image_size, mode.image_size, generator=g)
            view = torch.randn(1, 3, mode.base_size, mode.base_size, generator=g)
            pages.append((tiles if w * h > 1 else torch.zeros_like(tiles), view))
        ids += torch.randint(3, 290, (4,), generator=g).tolist()
        if not pages:
            pages, grids = [(torch.zeros(1, 3, 64, 64),) * 2], [(1, 1)]
        rows.append(ids)
        images.append(pages if len(pages) > 1 else pages[0])
        crops.append([list(grid) for grid in grids] if len(grids) > 1 else list(grids[0]))
    n = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[2] * (n - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (n - len(row)) + [1] * len(row) for row in rows]),
        "images_seq_mask": torch.tensor(
            [[False] * (n - len(row)) + [i == IMAGE for i in row] for row in rows]
        ),
        "images": images,
        "images_spatial_crop": crops
        if any(isinstance(crop[0], list) for crop in crops)
        else torch.tensor(crops),
    }


def alone(given: dict, i: int) -> dict:
    """Sample i of a batch by itself, without padding."""
    start = int(given["attention_mask"][i].argmax())
    rows = {key: value[i : i + 1, start:] for key, value in given.items() if torch.is_tensor(value)}
    return {**rows, "images": [given["images"][i]], "images_spatial_crop": [given["images_spatial_crop"][i]]}
