"""The published checkpoints: what is known about each of them, stated once. No torch here.

    from model.official import DEEPSEEK_OCR
    DEEPSEEK_OCR.language["hidden_size"]   # 1280

Code that needs an official size, prompt or default takes it from here. A further model of the family is a
further `Checkpoint` in CHECKPOINTS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint. `sam`, `clip` and `language` have the keys of its config.json."""

    hub: str  # repository on Hugging Face and on ModelScope
    architecture: str  # entry of `architectures` in config.json
    tensors: int  # entries of the index of the weights
    parameters: int
    bytes: int  # of all tensors (metadata.total_size of the index)
    dtype: str  # of the stored tensors
    sam: Mapping[str, Any]
    clip: Mapping[str, Any]
    language: Mapping[str, Any]
    image_token_id: int
    pad_token_id: int
    modes: Mapping[str, tuple[int, int, bool]]  # name: (base_size, image_size, crop_mode) in pixels
    mode: str  # the default of `infer`
    tile: int  # pixels; the original chooses tiles by this constant, whatever image_size is
    max_tiles: int
    prompts: Mapping[str, str]
    max_new_tokens: int
    no_repeat_ngram_size: int  # over the whole sequence
    no_repeat_ngram_size_eval: int  # with eval_mode=True


def _frozen(**entries) -> Mapping[str, Any]:
    return MappingProxyType(entries)


# The keys that the official config.json does not have are constants in the original's code.
DEEPSEEK_OCR = Checkpoint(
    hub="deepseek-ai/DeepSeek-OCR",
    architecture="DeepseekOCRForCausalLM",
    tensors=2710,
    parameters=3_336_106_240,
    bytes=6_672_212_480,
    dtype="bfloat16",
    sam=_frozen(
        width=768,
        layers=12,
        heads=12,
        global_attn_indexes=[2, 5, 8, 11],
        downsample_channels=[512, 1024],
        mlp_ratio=4,
        layer_norm_eps=1e-6,
        patch_size=16,
        window_size=14,
        neck_channels=256,
    ),
    clip=_frozen(
        width=1024,
        layers=24,
        heads=16,
        image_size=224,
        patch_size=14,
        intermediate_size=4096,
        layer_norm_eps=1e-5,
    ),
    language=_frozen(
        hidden_size=1280,
        intermediate_size=6848,
        moe_intermediate_size=896,
        num_hidden_layers=12,
        num_attention_heads=10,
        num_key_value_heads=10,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
        vocab_size=129280,
        max_position_embeddings=8192,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
        bos_token_id=0,
        eos_token_id=1,
    ),
    image_token_id=128815,
    pad_token_id=2,
    modes=_frozen(
        tiny=(512, 512, False),
        small=(640, 640, False),
        base=(1024, 1024, False),
        large=(1280, 1280, False),
        gundam=(1024, 640, True),
    ),
    mode="gundam",
    tile=640,
    max_tiles=9,
    prompts=_frozen(
        document="<image>\n<|grounding|>Convert the document to markdown.",
        ocr="<image>\n<|grounding|>OCR this image.",
        free="<image>\nFree OCR.",
        figure="<image>\nParse the figure.",
        describe="<image>\nDescribe this image in detail.",
        locate="<image>\nLocate <|ref|>{target}<|/ref|> in the image.",
    ),
    max_new_tokens=8192,
    no_repeat_ngram_size=20,
    no_repeat_ngram_size_eval=35,
)

#: {name on the command line: checkpoint}
CHECKPOINTS = {"deepseek-ocr": DEEPSEEK_OCR}
