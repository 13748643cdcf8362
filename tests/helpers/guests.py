"""Tiny towers of transformers with random weights: every kind of convolution that a port can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import transformers as t

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
PICTURE = {"image_size": 16, "patch_size": 4}


@dataclass(frozen=True)
class Guest:
    """A tower, its inputs, and the number of its convolutions that can be exchanged."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], dict]
    convolutions: int

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def given(self) -> dict:
        torch.manual_seed(1)
        return self.inputs()


def pixels(size: int = 16) -> Callable[[], dict]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def whisper() -> nn.Module:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(
        t.WhisperConfig(
            d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24, num_mel_bins=8,
            max_source_positions=20, decoder_layers=1, decoder_attention_heads=2, vocab_size=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    )  # fmt: skip


def qwen2_vl() -> nn.Module:
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

    config = Qwen2VLVisionConfig(
        depth=1, embed_dim=16, hidden_size=16, num_heads=2, mlp_ratio=2, patch_size=4
    )
    config._attn_implementation = "eager"
    return Qwen2VisionTransformerPretrainedModel(config)


def sam() -> nn.Module:
    vision = t.SamVisionConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_dim=24, image_size=32, patch_size=4,
        output_channels=16, window_size=3, global_attn_indexes=[1], num_pos_feats=8, mlp_ratio=2.0,
    )  # fmt: skip
    decoder = t.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=24, num_hidden_layers=1, num_attention_heads=2, attention_downsample_rate=1,
        iou_head_hidden_dim=16, iou_head_depth=2,
    )  # fmt: skip
    prompt = t.SamPromptEncoderConfig(
        hidden_size=16, image_size=32, patch_size=4, mask_input_channels=4, image_embedding_size=8
    )
    return t.SamModel(
        t.SamConfig(
            vision_config=vision.to_dict(), mask_decoder_config=decoder.to_dict(),
            prompt_encoder_config=prompt.to_dict(),
        )
    )  # fmt: skip


GUESTS = {
    "whisper": Guest(whisper, lambda: {"input_features": torch.randn(2, 8, 40)}, 2),
    "qwen2-vl": Guest(
        qwen2_vl,
        lambda: {"hidden_states": torch.randn(16, 3 * 2 * 16), "grid_thw": torch.tensor([[1, 4, 4]])},
        1,
    ),
    "siglip": Guest(lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**SMALL, **PICTURE)), pixels(), 1),
    "vit": Guest(lambda: t.ViTModel(t.ViTConfig(**SMALL, **PICTURE)), pixels(), 1),
    "clip": Guest(lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**SMALL, **PICTURE)), pixels(), 1),
    "dinov2": Guest(lambda: t.Dinov2Model(t.Dinov2Config(**SMALL, **PICTURE, mlp_ratio=2)), pixels(), 1),
    "swin": Guest(
        lambda: t.SwinModel(
            t.SwinConfig(
                image_size=16, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2
            )
        ),
        pixels(),
        1,
    ),
    "convnext": Guest(
        lambda: t.ConvNextModel(t.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2)),
        pixels(32),
        4,
    ),
    "sam": Guest(
        sam,
        lambda: {"pixel_values": torch.randn(1, 3, 32, 32), "input_points": torch.tensor([[[[4.0, 9.0]]]])},
        8,
    ),
}  # fmt: skip


def numbers(output) -> list[torch.Tensor]:
    """All floating-point tensors in the output of a model, on the CPU."""
    values = output.to_tuple() if hasattr(output, "to_tuple") else (output,)
    return [v.float().cpu() for v in values if torch.is_tensor(v) and v.is_floating_point()]
