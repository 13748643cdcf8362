"""The golden cases: outputs of the original code with a tiny random checkpoint, see goldens/README.md."""

from __future__ import annotations

import json

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
    """(crops, global view) of each sample."""
    made = []
    for sample in INDEX[case]["samples"]:
        base, kind, crop = sample["base"], sample["kind"], sample["crop"]
        view = torch.from_numpy(to_pixels(synth_image(base, base, kind)))[None] if base else NOTHING
        crops = NOTHING
        if crop:
            w, h = crop
            crops = torch.from_numpy(tiles(synth_image(640 * w, 640 * h, kind + 1), w, h))
        made.append((crops, view))
    return made


def inputs(case: str) -> dict:
    t = tensors(case)
    names = ("input_ids", "images_seq_mask", "images_spatial_crop", "attention_mask")
    return {"images": pages(case), **{name: t[name] for name in names}}
