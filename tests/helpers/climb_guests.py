"""Whole models that are not ours, tiny and with random weights, for the battery of planted faults.

Each is built with one attention ("eager" or "sdpa") and gets inputs with or without left padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn as nn
import transformers as t

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 99, "bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
TOKENS = 160  # a rotary frequency that is rounded is wrong by one part in 2000 per position


def need(name: str) -> None:
    """Skip the test if this transformers has no such class."""
    if not hasattr(t, name):
        pytest.skip(f"transformers {t.__version__} has no {name}")


def set_attention(model: nn.Module, attention: str) -> None:
    """Skip the test if this transformers cannot change the attention of a model (4.46 cannot)."""
    if not hasattr(model, "set_attn_implementation"):
        pytest.skip(f"transformers {t.__version__} cannot change the attention of a model")
    model.set_attn_implementation(attention)


@dataclass(frozen=True)
class ClimbGuest:
    """make(attention) gives a model, inputs(padded) its inputs.

    family: "text", "mixture of experts", "vision-language", "encoder-decoder", "crnn".
    padding: whether its inputs can be padded. attention: whether it has a choice of attention.
    """

    name: str
    family: str
    make: Callable[[str], nn.Module]
    inputs: Callable[[bool], dict]
    padding: bool = True
    attention: bool = True

    def build(self, attention: str) -> nn.Module:
        torch.manual_seed(0)
        model = self.make(attention).eval()
        spread(model)
        return model

    def given(self, padded: bool) -> dict:
        torch.manual_seed(1)
        return self.inputs(padded)


def spread(model: nn.Module) -> None:
    """Larger random weights than at initialisation, so that blocks change what passes through them."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() > 1 and "embed" not in name:
                p.mul_(4.0) if p.std() < 0.05 else None
            elif p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))


def token_ids(padded: bool, n: int = TOKENS) -> dict:
    ids = torch.randint(5, 90, (2, n))
    if not padded:
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[0, :7] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


def qwen2(attention: str) -> nn.Module:
    return t.Qwen2ForCausalLM(t.Qwen2Config(**TEXT, attn_implementation=attention))


def gpt2(attention: str) -> nn.Module:
    return t.GPT2LMHeadModel(
        t.GPT2Config(
            n_embd=32, n_layer=2, n_head=4, vocab_size=99, n_positions=256, bos_token_id=0, eos_token_id=None,
            attn_implementation=attention,
        )
    )  # fmt: skip


def qwen3_moe(attention: str) -> nn.Module:
    need("Qwen3MoeConfig")
    config = t.Qwen3MoeConfig(
        **TEXT, head_dim=8, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=24,
        norm_topk_prob=True, attn_implementation=attention,
    )  # fmt: skip
    return t.Qwen3MoeForCausalLM(config)


def deepseek_v2(attention: str) -> nn.Module:
    need("DeepseekV2Config")
    config = t.DeepseekV2Config(
        **TEXT | {"num_key_value_heads": 4}, n_routed_experts=6, n_shared_experts=1, num_experts_per_tok=2,
        moe_intermediate_size=24, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=None,
        qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, attn_implementation=attention,
    )  # fmt: skip
    return t.DeepseekV2ForCausalLM(config)


PICTURE = {"image_size": 16, "patch_size": 4}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def llava(attention: str) -> nn.Module:
    config = t.LlavaConfig(
        vision_config=t.CLIPVisionConfig(**SMALL, **PICTURE), text_config=t.Qwen2Config(**TEXT),
        image_token_id=98, image_seq_length=16, vision_feature_layer=-1,
    )  # fmt: skip
    config._attn_implementation = attention
    model = t.LlavaForConditionalGeneration(config)
    set_attention(model, attention)
    return model


def with_picture(padded: bool) -> dict:
    given = token_ids(padded)
    given["input_ids"][:, 10:26] = 98
    return given | {"pixel_values": torch.randn(2, 3, 16, 16)}


def florence2(attention: str) -> nn.Module:
    need("Florence2Config")
    vision = {
        "embed_dim": [16, 32], "depths": [1, 1], "num_heads": [2, 4], "num_groups": [2, 4], "window_size": 2,
        "patch_size": [4, 2], "patch_stride": [2, 2], "patch_padding": [1, 0], "patch_prenorm": [False, True],
        "projection_dim": 32, "max_temporal_embeddings": 4, "max_position_embeddings": 8,
    }  # fmt: skip
    config = t.Florence2Config(vision_config=vision, text_config=bart_config().to_dict(), image_token_id=98)
    model = t.Florence2ForConditionalGeneration(config)
    set_attention(model, attention)
    return model


def bart_config() -> t.BartConfig:
    return t.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=99, max_position_embeddings=256, bos_token_id=0,
        pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip


def bart(attention: str) -> nn.Module:
    model = t.BartForConditionalGeneration(bart_config())
    set_attention(model, attention)
    return model


def pairs_of_texts(padded: bool) -> dict:
    return token_ids(padded) | {"decoder_input_ids": torch.randint(5, 90, (2, 12))}


def florence_inputs(padded: bool) -> dict:
    given = token_ids(padded)
    given["input_ids"][:, 10 : 10 + 17] = 98
    given["decoder_input_ids"] = torch.randint(5, 90, (2, 12))
    return given | {"pixel_values": torch.randn(2, 3, 16, 16)}


def trocr(attention: str) -> nn.Module:
    encoder = t.ViTConfig(**SMALL, **PICTURE)
    decoder = t.TrOCRConfig(
        d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48, vocab_size=99,
        max_position_embeddings=256, cross_attention_hidden_size=32, is_decoder=True,
        add_cross_attention=True, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = t.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    model = t.VisionEncoderDecoderModel(config)
    set_attention(model.encoder, attention)
    return model


def line_and_text(padded: bool) -> dict:
    return {"pixel_values": torch.randn(2, 3, 16, 16), "decoder_input_ids": torch.randint(5, 90, (2, 12))}


def whisper(attention: str) -> nn.Module:
    model = t.WhisperForConditionalGeneration(
        t.WhisperConfig(
            d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48, num_mel_bins=8,
            max_source_positions=20, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
            vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )
    )  # fmt: skip
    set_attention(model, attention)
    return model


def speech(padded: bool) -> dict:
    return {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": torch.randint(5, 90, (2, 12))}


class Crnn(nn.Module):
    """Convolutions, two LSTM layers over the columns, a classifier: the usual reader of single lines."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d((2, 1)),
        )  # fmt: skip
        self.columns = nn.Linear(32, 24)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(24)
        self.layers = nn.ModuleList(nn.LSTM(24, 12, bidirectional=True, batch_first=True) for _ in range(2))
        self.head = nn.Linear(24, 37)

    def forward(self, pixels):
        maps = self.features(pixels)
        x = self.norm(self.activation(self.columns(maps.flatten(1, 2).mT)))
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.head(x)


GUESTS = {
    guest.name: guest
    for guest in (
        ClimbGuest("qwen2", "text", qwen2, token_ids),
        ClimbGuest("gpt2", "text", gpt2, token_ids),
        ClimbGuest("qwen3_moe", "mixture of experts", qwen3_moe, token_ids),
        ClimbGuest("deepseek_v2", "mixture of experts", deepseek_v2, token_ids),
        ClimbGuest("llava", "vision-language", llava, with_picture),
        ClimbGuest("florence2", "vision-language", florence2, florence_inputs),
        ClimbGuest("bart", "encoder-decoder", bart, pairs_of_texts),
        ClimbGuest("trocr", "encoder-decoder", trocr, line_and_text, padding=False),
        ClimbGuest("whisper", "encoder-decoder", whisper, speech, padding=False),
        ClimbGuest(
            "crnn", "crnn", lambda attention: Crnn(), lambda padded: {"pixels": torch.randn(2, 1, 8, 24)},
            padding=False, attention=False,
        ),
    )
}  # fmt: skip
