"""OCR and vision-language models of transformers, tiny and random; see guest_models.py.

Some configs have an `initializer_range` of 1e-10, for weights that are loaded. fp16 has no such numbers, so
it is set here.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import transformers as t

from deskocr_kit.course.example_llava import build_llava, llava_inputs

from .guest_models import IMAGE, TEXT, Model, prompt

TOWER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 8, "initializer_range": 0.02,
}  # fmt: skip
SAM = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 24, "image_size": 64,
    "patch_size": 4, "window_size": 3, "global_attn_indexes": [1], "output_channels": 8,
    "initializer_range": 0.02,
}  # fmt: skip
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 120,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
PLACES = {  # of the Qwen-VL family
    "image_token_id": IMAGE, "video_token_id": 111, "vision_start_token_id": 112, "vision_end_token_id": 113,
}  # fmt: skip


def page(pictures: int, size: int = 32, **more) -> dict[str, torch.Tensor]:
    """A prompt with `pictures` placeholders, and one picture."""
    return prompt(1, *[IMAGE] * pictures, 5, 9) | {"pixel_values": torch.randn(1, 3, size, size), **more}


def patches(numbers: int, channels: int = 3 * 2 * 8 * 8) -> dict[str, torch.Tensor]:
    """The inputs of the Qwen-VL family: 4 x 4 patches (16, channels), merged to `numbers` placeholders."""
    given = prompt(1, 112, *[IMAGE] * numbers, 113, 5, 9)
    return given | {
        "pixel_values": torch.randn(16, channels),
        "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (given["input_ids"] == IMAGE).int(),
    }


def decoder_ids() -> dict[str, torch.Tensor]:
    return {"decoder_input_ids": torch.tensor([[1, 5, 9]])}


# ---------------------------------------------------------------------- OCR
def got_ocr2() -> nn.Module:
    vision = {**SAM, "image_size": 64, "patch_size": 4}
    return t.GotOcr2ForConditionalGeneration(
        t.GotOcr2Config(
            vision_config=vision, text_config={"model_type": "qwen2", **TEXT}, image_token_index=IMAGE
        )
    )


def experts() -> dict:
    return {
        **TEXT, "num_key_value_heads": 4, "n_routed_experts": 8, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_layer_types": ["dense", "sparse"],
    }  # fmt: skip


def deepseek_ocr2() -> nn.Module:
    encoder = {**TEXT, "num_key_value_heads": 2}
    vision = {"sam_config": {**SAM, "downsample_channels": [16, 32]}, "encoder_config": encoder}
    return t.DeepseekOcr2ForConditionalGeneration(
        t.DeepseekOcr2Config(vision_config=vision, text_config=experts(), image_token_id=IMAGE)
    )


def unlimited_ocr() -> nn.Module:
    vision = {
        "sam_config": {**SAM, "downsample_channels": [16, 32]},
        "encoder_config": {**TOWER, "image_size": 32, "patch_size": 8},
    }
    text = {**experts(), "sliding_window": 8}
    return t.UnlimitedOcrForConditionalGeneration(
        t.UnlimitedOcrConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    )


def trocr() -> nn.Module:
    decoder = t.TrOCRConfig(
        d_model=32, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=48, vocab_size=120,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        cross_attention_hidden_size=32, is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    return _encoder_decoder(t.ViTConfig(**TOWER), decoder)


def donut() -> nn.Module:
    encoder = t.DonutSwinConfig(
        image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    decoder = t.MBartConfig(**BART, is_decoder=True, add_cross_attention=True, scale_embedding=True)
    return _encoder_decoder(encoder, decoder)


def _encoder_decoder(encoder, decoder) -> nn.Module:
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return t.VisionEncoderDecoderModel(config=config)


def pix2struct() -> nn.Module:
    sizes = {"hidden_size": 32, "d_ff": 48, "d_kv": 8}
    return t.Pix2StructForConditionalGeneration(
        t.Pix2StructConfig(
            text_config={**sizes, "num_layers": 2, "num_heads": 4, "vocab_size": 120, "eos_token_id": 2},
            vision_config={
                **sizes, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_embed_hidden_size": 48,
                "seq_len": 16,
            },
        )
    )  # fmt: skip


def flattened() -> dict[str, torch.Tensor]:
    """Row, column and pixels of each patch (1, 16, 2 + 48)."""
    rows = torch.arange(16).view(16, 1)
    places = torch.cat((rows // 4 + 1, rows % 4 + 1), 1).float()
    return {
        "flattened_patches": torch.cat((places, torch.randn(16, 48)), 1)[None],
        "attention_mask": torch.ones(1, 16),
        **decoder_ids(),
    }


def mgp_str() -> nn.Module:
    return t.MgpstrForSceneTextRecognition(
        t.MgpstrConfig(
            image_size=(16, 32), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_token_length=6, num_character_labels=38, num_bpe_labels=60, num_wordpiece_labels=60,
        )
    )  # fmt: skip


def paddleocr_vl() -> nn.Module:
    text = {**TEXT, "head_dim": 8, "rope_parameters": MROPE}
    return t.PaddleOCRVLForConditionalGeneration(
        t.PaddleOCRVLConfig(vision_config=TOWER, text_config=text, **PLACES)
    )


def lighton_ocr() -> nn.Module:
    vision = {"model_type": "pixtral", **TOWER, "image_size": 64, "head_dim": 16}
    text = {"model_type": "qwen3", **TEXT, "head_dim": 8}
    return t.LightOnOcrForConditionalGeneration(
        t.LightOnOcrConfig(vision_config=vision, text_config=text, image_token_id=IMAGE)
    )


def table_transformer() -> nn.Module:
    return t.TableTransformerForObjectDetection(
        t.TableTransformerConfig(
            d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, num_queries=5, num_labels=3,
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
            backbone_config=t.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], out_features=["stage2"]
            ),
        )
    )  # fmt: skip


# ---------------------------------------------------------------------- vision and language
def qwen2_vl() -> nn.Module:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    text = {**TEXT, "rope_parameters": MROPE}
    return t.Qwen2VLForConditionalGeneration(
        t.Qwen2VLConfig(vision_config=vision, text_config=text, **PLACES)
    )


def idefics3() -> nn.Module:
    return t.Idefics3ForConditionalGeneration(
        t.Idefics3Config(
            vision_config=TOWER,
            text_config={"model_type": "llama", **TEXT},
            image_token_id=IMAGE,
            scale_factor=2,
        )
    )


def paligemma() -> nn.Module:
    vision = {"model_type": "siglip_vision_model", **TOWER}
    text = {"model_type": "gemma", **TEXT, "head_dim": 8, "num_key_value_heads": 1}
    return t.PaliGemmaForConditionalGeneration(
        t.PaliGemmaConfig(
            vision_config=vision, text_config=text, image_token_index=IMAGE, projection_dim=32,
            hidden_size=32, vocab_size=120,
        )
    )  # fmt: skip


def internvl() -> nn.Module:
    vision = {**TOWER, "image_size": (32, 32), "patch_size": (8, 8)}
    return t.InternVLForConditionalGeneration(
        t.InternVLConfig(
            vision_config=vision, text_config={"model_type": "qwen2", **TEXT}, image_token_id=IMAGE,
            image_seq_length=4,
        )
    )  # fmt: skip


def florence2() -> nn.Module:
    vision = {
        "depths": (1, 1), "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1),
        "patch_prenorm": (False, True), "embed_dim": (16, 32), "num_heads": (2, 2), "num_groups": (2, 2),
        "window_size": 4, "projection_dim": 32, "max_temporal_embeddings": 4, "max_position_embeddings": 8,
    }  # fmt: skip
    return t.Florence2ForConditionalGeneration(
        t.Florence2Config(
            vision_config=vision, text_config={"model_type": "bart", **BART}, image_token_id=IMAGE
        )
    )


def blip_2() -> nn.Module:
    text = {
        "model_type": "opt", "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "vocab_size": 120, "max_position_embeddings": 64, "word_embed_proj_dim": 32,
        "eos_token_id": None, "pad_token_id": 0, "bos_token_id": 1,
    }  # fmt: skip
    former = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "encoder_hidden_size": 32, "vocab_size": 120,
    }  # fmt: skip
    return t.Blip2ForConditionalGeneration(
        t.Blip2Config(
            vision_config=TOWER,
            qformer_config=former,
            text_config=text,
            num_query_tokens=4,
            image_token_index=IMAGE,
        )
    )


def models() -> dict[str, Model]:
    """{name: model}, 17 of them."""
    return {
        "LLaVA": Model(build_llava, llava_inputs),
        "GOT-OCR2": Model(got_ocr2, lambda: page(16, 64), needs="GotOcr2Config"),
        "DeepSeek-OCR-2": Model(deepseek_ocr2, lambda: page(145, 64), needs="DeepseekOcr2Config"),
        "Unlimited-OCR": Model(unlimited_ocr, lambda: page(21, 64), needs="UnlimitedOcrConfig"),
        "TrOCR": Model(trocr, lambda: {"pixel_values": torch.randn(1, 3, 32, 32), **decoder_ids()}),
        "Donut": Model(donut, lambda: {"pixel_values": torch.randn(1, 3, 32, 32), **decoder_ids()}),
        "Pix2Struct": Model(pix2struct, flattened),
        "MGP-STR": Model(mgp_str, lambda: torch.randn(2, 3, 16, 32), generates=False),
        "PaddleOCR-VL": Model(
            paddleocr_vl,
            lambda: patches(4) | {"pixel_values": torch.randn(16, 3, 8, 8)},
            needs="PaddleOCRVLConfig",
        ),
        "LightOnOCR": Model(
            lighton_ocr,
            lambda: page(4, 32, image_sizes=torch.tensor([[32, 32]])),
            needs="LightOnOcrConfig",
        ),
        "Table Transformer": Model(table_transformer, lambda: (torch.randn(1, 3, 64, 64),), generates=False),
        "Qwen2-VL": Model(qwen2_vl, lambda: patches(4)),
        "Idefics3": Model(idefics3, lambda: page(4) | {"pixel_values": torch.randn(1, 1, 3, 32, 32)}),
        "PaliGemma": Model(paligemma, lambda: page(16)),
        "InternVL": Model(internvl, lambda: page(4), needs="InternVLConfig"),
        "Florence-2": Model(florence2, lambda: page(17) | decoder_ids(), needs="Florence2Config"),
        "BLIP-2": Model(blip_2, lambda: page(4)),
    }
