"""The same networks in transformers 5.x: an independent check and a speed baseline.

`deepseek_ocr2` is DeepSeek-OCR-2. `unlimited_ocr` is Unlimited-OCR; with a sliding window so wide that it has
no effect it is DeepSeek-OCR too. They share no code with the original or with ours, and read the same
checkpoints through their own conversion of names.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from model.loading import OPTIONAL as IGNORED  # unused; the peer does not have it
from model.pages import by_sample

WIDE = 1_000_000  # tokens; longer than any sequence here


def peer_module(config) -> str:
    """The name of the peer below transformers.models."""
    return "deepseek_ocr2" if config.clip is None else "unlimited_ocr"


def peer_classes(config) -> tuple[type[Any], type[Any]]:
    """(config class, model class) of the peer. Raises ImportError without transformers 5."""
    name = peer_module(config)
    found, prefix = importlib.import_module(f"transformers.models.{name}"), name.title().replace("_", "")
    return getattr(found, f"{prefix}Config"), getattr(found, f"{prefix}ForConditionalGeneration")


def peer_encoder(config) -> dict:
    """The encoder behind SAM, with the peer's keys."""
    if config.clip is None:
        c = config.encoder
        return {
            "hidden_size": c.width,
            "intermediate_size": c.hidden,
            "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads,
            "num_key_value_heads": c.kv_heads,
            "rms_norm_eps": c.eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        }
    clip = config.clip
    return {
        "hidden_size": clip.width,
        "intermediate_size": clip.hidden,
        "num_hidden_layers": clip.layers,
        "num_attention_heads": clip.heads,
        "image_size": clip.grid * clip.patch,
        "patch_size": clip.patch,
        "layer_norm_eps": clip.eps,
    }


def peer_config(config):
    """The peer's config for ours, with every size. Raises ImportError without transformers 5."""
    sam, c = config.sam, config.decoder
    text = {
        "vocab_size": c.vocab,
        "hidden_size": c.width,
        "intermediate_size": c.dense_hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.heads,
        "max_position_embeddings": c.max_positions,
        "rms_norm_eps": c.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "n_routed_experts": c.experts,
        "n_shared_experts": c.shared_experts,
        "num_experts_per_tok": c.experts_per_token,
        "moe_intermediate_size": c.expert_hidden,
        "routed_scaling_factor": c.expert_scale,
        "mlp_layer_types": ["dense" if i < c.dense_layers else "sparse" for i in range(c.layers)],
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": 2,
    }
    if config.clip is not None:
        text["sliding_window"] = c.window or WIDE
    return peer_classes(config)[0](
        image_token_id=config.image_token_id,
        vision_config={
            "sam_config": {
                "hidden_size": sam.width,
                "output_channels": sam.neck,
                "num_hidden_layers": sam.layers,
                "num_attention_heads": sam.heads,
                "image_size": sam.grid * sam.patch,
                "patch_size": sam.patch,
                "layer_norm_eps": sam.eps,
                "window_size": sam.window,
                "global_attn_indexes": list(sam.global_blocks),
                "mlp_dim": sam.hidden,
                "downsample_channels": list(sam.downsample_channels),
            },
            "encoder_config": peer_encoder(config),
        },
        text_config=text,
    )


def load_peer(folder: str | Path, config, dtype=torch.float32, attention: str = "eager"):
    """Load the peer with the weights of a checkpoint.

    Raises:
        ValueError: tensors are missing, unexpected or have another shape.
        ImportError: no transformers 5.
    """
    model, report = peer_classes(config)[1].from_pretrained(
        folder,
        config=peer_config(config),
        dtype=dtype,
        attn_implementation=attention,
        output_loading_info=True,
    )
    wrong = {
        **dict.fromkeys(report["missing_keys"], "missing"),
        **{str(name): "mismatched" for name in report["mismatched_keys"]},
        **dict.fromkeys(set(report["unexpected_keys"]) - IGNORED, "unexpected"),
    }
    if wrong:
        raise ValueError(f"{folder}: these weights do not fit the peer: {dict(list(wrong.items())[:3])}")
    return model.eval()


def peer_inputs(
    given: dict, samples: Sequence[tuple[bool, tuple[int, int] | None]] | None = None, rows: bool = True
) -> dict:
    """The peer's inputs for those of our `generate`. It takes the pages of the samples with one, in order.

    samples: per row (whether it has a page, its grid of tiles or None); default: read from `given`.
    rows: whether the peer lays tiles out in rows and needs their grids, which `deepseek_ocr2` does not.
    """
    pages = by_sample(given["images"], given["images_spatial_crop"])
    has = given["images_seq_mask"].any(1).tolist() if samples is None else [each[0] for each in samples]
    asked = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    seen = [page for row, there in zip(pages, has, strict=True) if there for page in row]
    if seen:
        asked["pixel_values"] = torch.cat([view for (_, view), _ in seen])
    if any(w * h > 1 for _, (w, h) in seen):
        asked["pixel_values_local"] = torch.cat([crops for (crops, _), (w, h) in seen if w * h > 1])
        asked["num_local_patches"] = [len(crops) if w * h > 1 else 0 for (crops, _), (w, h) in seen]
        if rows:
            asked["patches_grid"] = [list(grid) for _, grid in seen]
    return asked
