"""The same network in transformers 5.x (`unlimited_ocr`): an independent check and a speed baseline.

It shares no code with the original or with ours, and reads the same checkpoint through its own conversion of
names. Its one difference, a sliding window over decoded tokens, is set so wide that it has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

WIDE = 1_000_000  # tokens; longer than any sequence here
IGNORED = {"model.vision_model.embeddings.patch_embedding.weight"}  # unused; the peer does not have it


def peer_config(config):
    """The peer's config for ours, with every size. Raises ImportError without transformers 5."""
    from transformers.models.unlimited_ocr import UnlimitedOcrConfig

    sam, clip, c = config.sam, config.clip, config.decoder
    return UnlimitedOcrConfig(
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
            "encoder_config": {
                "hidden_size": clip.width,
                "intermediate_size": clip.hidden,
                "num_hidden_layers": clip.layers,
                "num_attention_heads": clip.heads,
                "image_size": clip.grid * clip.patch,
                "patch_size": clip.patch,
                "layer_norm_eps": clip.eps,
            },
        },
        text_config={
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
            "first_k_dense_replace": c.dense_layers,
            "sliding_window": WIDE,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": 2,
        },
    )


def load_peer(folder: str | Path, config, dtype=torch.float32, attention: str = "eager"):
    """Load the peer with the weights of a checkpoint.

    Raises:
        ValueError: tensors are missing, unexpected or have another shape.
        ImportError: no transformers 5.
    """
    from transformers.models.unlimited_ocr import UnlimitedOcrForConditionalGeneration

    model, report = UnlimitedOcrForConditionalGeneration.from_pretrained(
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


def peer_inputs(given: dict, samples: Sequence[tuple[bool, tuple[int, int] | None]] | None = None) -> dict:
    """The peer's inputs for those of our `generate`. It takes the pages of the samples with one, in order.

    samples: per row (whether it has a page, its grid of tiles or None); default: read from `given`.
    """
    if samples is None:
        has = given["images_seq_mask"].any(1).tolist()
        grids = [tuple(grid) for grid in given["images_spatial_crop"].tolist()]
        samples = [(a, grid if grid[0] * grid[1] > 1 else None) for a, grid in zip(has, grids, strict=True)]
    asked = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    seen = [(page, grid) for page, (has, grid) in zip(given["images"], samples, strict=True) if has]
    if seen:
        asked["pixel_values"] = torch.cat([view for (_, view), _ in seen])
    if any(grid for _, grid in seen):
        asked["pixel_values_local"] = torch.cat([crops for (crops, _), grid in seen if grid])
        asked["num_local_patches"] = [len(crops) if grid else 0 for (crops, _), grid in seen]
        asked["patches_grid"] = [list(grid or (1, 1)) for _, grid in seen]
    return asked
