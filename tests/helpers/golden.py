"""The golden cases: outputs of the original code with a tiny random checkpoint, see goldens/README.md."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator

import torch
from safetensors.torch import load_file

from tests.helpers.paths import GOLDENS
from tests.helpers.recipes import synth_image, tiles, to_pixels

CHECKPOINT = GOLDENS / "checkpoint"
INDEX = json.loads((GOLDENS / "index.json").read_text())
CASES = list(INDEX)
NOTHING = torch.zeros(1, 3, 640, 640)


def tensors(case: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDENS / f"case_{case}.safetensors")


def pages(case: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(crops, global view) of each sample. They are made once: do not change them."""
    return list(_pages(case))


@functools.cache
def _pages(case: str) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    made = []
    for sample in INDEX[case]["samples"]:
        base, kind, crop = sample["base"], sample["kind"], sample["crop"]
        view = torch.from_numpy(to_pixels(synth_image(base, base, kind)))[None] if base else NOTHING
        crops = NOTHING
        if crop:
            w, h = crop
            crops = torch.from_numpy(tiles(synth_image(640 * w, 640 * h, kind + 1), w, h))
        made.append((crops, view))
    return tuple(made)


def inputs(case: str) -> dict:
    t = tensors(case)
    names = ("input_ids", "images_seq_mask", "images_spatial_crop", "attention_mask")
    return {"images": pages(case), **{name: t[name] for name in names}}


def small_page(side: int = 256) -> dict:
    """The inputs of g640 with a view of `side` pixels: every part of the network runs, in less time."""
    given, cells = inputs("g640"), side // 64
    tokens = cells * (cells + 1) + 1  # a newline per row, a separator
    shown = given["images_seq_mask"][0]
    kept = ~shown | (shown.cumsum(0) <= tokens)
    view = torch.from_numpy(to_pixels(synth_image(side, side, 1)))[None]
    rows = {name: given[name][:, kept] for name in ("input_ids", "images_seq_mask", "attention_mask")}
    return {**given, **rows, "images": [(NOTHING, view)]}


@contextlib.contextmanager
def encoding_once(model) -> Iterator[None]:
    """In this context `model` encodes each page of the golden cases once and keeps the vectors."""
    encode, known = model.encode_pages, {}

    def remembered(images, spatial_crop):
        key = tuple(map(id, (t for page in images for t in page))), str(list(map(list, spatial_crop)))
        if key not in known:
            known[key] = images, encode(images, spatial_crop)
        return list(known[key][1])

    model.encode_pages = remembered
    try:
        yield
    finally:
        del model.encode_pages
