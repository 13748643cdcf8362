"""Tiny random models of the family, and random pages for them: notebook 10 compares their implementations."""

from __future__ import annotations

import torch

from model import DeepseekOCRConfig
from model.official import CHECKPOINTS
from model.tiling import Mode, count_image_tokens

IMAGE = 299
SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 3, "vocab_size": 300, "image_token_id": IMAGE,
}  # fmt: skip
SAM = {
    "width": 32, "layers": 3, "heads": 4, "global_attn_indexes": [1], "downsample_channels": [24, 48],
    "neck_channels": 16, "window_size": 5,
}  # fmt: skip
ENCODERS = {
    "clip-l-14-224": {"width": 48, "layers": 3, "heads": 4, "intermediate_size": 96},
    "qwen2-0-5b": {"dim": 48, "layers": 3, "heads": 6, "kv_heads": 2, "intermediate_size": 80},
}


def tiny_config(name: str, **more) -> DeepseekOCRConfig:
    """A tiny config. name: in model.official.CHECKPOINTS; more: further keys of config.json."""
    official = CHECKPOINTS[name]
    width = {"sam_vit_b": SAM, official.encoder_key: ENCODERS[official.encoder_key]}
    return DeepseekOCRConfig(
        architectures=[official.architecture], vision_config={"width": width}, **{**SIZES, **more}
    )


def tiny_page(config: DeepseekOCRConfig, grid: tuple[int, int] = (2, 1), seed: int = 1) -> dict:
    """Inputs of `generate` for one random page: a view of 256 pixels and, for a grid, tiles of 192."""
    g, (w, h) = torch.Generator().manual_seed(seed), grid
    mode = Mode("tiny views", 256, 192, True, config.checkpoint)
    tiles = torch.randn(w * h, 3, mode.image_size, mode.image_size, generator=g)
    view = torch.randn(1, 3, mode.base_size, mode.base_size, generator=g)
    places = [IMAGE] * count_image_tokens(mode, grid)
    ids = torch.tensor([[config.bos_token_id, *places, *torch.randint(3, 290, (4,), generator=g).tolist()]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "images": [(tiles, view)],
        "images_seq_mask": ids == IMAGE,
        "images_spatial_crop": torch.tensor([[w, h]]),
    }
