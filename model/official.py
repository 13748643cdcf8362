"""The published checkpoints: what is known about each of them, stated once. No torch here.

    from model.official import DEEPSEEK_OCR
    DEEPSEEK_OCR.language["hidden_size"]   # 1280
    config.checkpoint.prompts["document"]  # of the model that a config.json describes

Code that needs an official size, prompt or default takes it from here. A further model of the family is a
further `Checkpoint` in CHECKPOINTS; docs/another_model.md shows how to add one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One published checkpoint. `sam`, `encoder` and `language` have the keys of its config.json."""

    title: str
    hub: str  # repository on Hugging Face and on ModelScope
    architecture: str  # entry of `architectures` in config.json
    model_type: str  # in config.json
    tensors: int  # entries of the index of the weights
    parameters: int
    bytes: int  # of all tensors (metadata.total_size of the index)
    dtype: str  # of the stored tensors
    sam: Mapping[str, Any]
    encoder_key: str  # of the encoder behind SAM in vision_config.width; model/vision.py builds it
    encoder: Mapping[str, Any]
    language: Mapping[str, Any]
    image_token_id: int
    pad_token_id: int
    modes: Mapping[str, tuple[int, int, bool]]  # name: (base_size, image_size, crop_mode) in pixels
    mode: str  # the default of `infer`
    tile: int  # pixels; the original chooses tiles by this constant, whatever image_size is
    max_tiles: int
    prompts: Mapping[str, str]
    max_new_tokens: int
    no_repeat_ngram_size: int
    no_repeat_ngram_size_eval: int  # with eval_mode=True
    ngram_window: int | None = None  # tokens; None: the whole sequence
    sliding_window: int | None = None  # generated tokens that stay visible, see model/ring.py; None: all
    pages_mode: str | None = None  # the mode of several pages in one prompt; None: one page only
    pages_ngram_window: int | None = None
    squeeze: int = 0  # pixels; a single view up to this side loses its aspect ratio, a larger one is padded
    pad_like_pillow: bool = True  # how the padded view is rounded, see tiling.pad
    queries: tuple[int, ...] = ()  # learned queries of a tile and of a larger view, see query_encoder.py

    @property
    def name(self) -> str:
        """The name on the command line, the key in CHECKPOINTS."""
        return self.hub.rpartition("/")[2].lower()


def _frozen(**entries) -> Mapping[str, Any]:
    return MappingProxyType(entries)


# The keys that the official config.json does not have are constants in the original's code.
DEEPSEEK_OCR = Checkpoint(
    title="DeepSeek-OCR",
    hub="deepseek-ai/DeepSeek-OCR",
    architecture="DeepseekOCRForCausalLM",
    model_type="deepseek_vl_v2",
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
    encoder_key="clip-l-14-224",
    encoder=_frozen(
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
    squeeze=640,
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

# Sizes and names were read from transformers 5.23 (`deepseek_ocr2`), and tensors, parameters and bytes were
# counted from them.
DEEPSEEK_OCR_2 = replace(
    DEEPSEEK_OCR,
    title="DeepSeek-OCR-2",
    hub="deepseek-ai/DeepSeek-OCR-2",
    architecture="DeepseekOCR2ForCausalLM",
    tensors=2707,
    parameters=3_389_119_360,
    bytes=6_778_238_720,
    sam=_frozen(**{**DEEPSEEK_OCR.sam, "downsample_channels": [512, 896]}),
    encoder_key="qwen2-0-5b",
    encoder=_frozen(
        dim=896,
        layers=24,
        heads=14,
        kv_heads=2,
        intermediate_size=4864,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
    ),
    modes=_frozen(
        small=(768, 768, False),
        base=(1024, 1024, False),
        gundam=(1024, 768, True),
    ),
    tile=768,
    max_tiles=6,
    squeeze=0,
    prompts=_frozen(
        document="<image>\n<|grounding|>Convert the document to markdown.",
        free="<image>\nFree OCR.",
    ),
    pad_like_pillow=False,
    queries=(144, 256),
)

# Sizes and names were read from transformers 5.23 (`unlimited_ocr`).
UNLIMITED_OCR = replace(
    DEEPSEEK_OCR,
    title="Unlimited-OCR",
    hub="baidu/Unlimited-OCR",
    architecture="UnlimitedOCRForCausalLM",
    model_type="unlimited-ocr",
    language=_frozen(**{**DEEPSEEK_OCR.language, "max_position_embeddings": 32768}),
    max_tiles=32,
    prompts=_frozen(
        document="<image>document parsing.",
        free="<image>document parsing.",  # the only prompt for one page, so that the default prompt works
        pages="<image>Multi page parsing.",
    ),
    max_new_tokens=32768,
    no_repeat_ngram_size=35,
    no_repeat_ngram_size_eval=35,
    ngram_window=128,
    sliding_window=128,
    pages_mode="base",
    pages_ngram_window=1024,
    pad_like_pillow=False,
)

#: {name on the command line: checkpoint}
CHECKPOINTS = {each.name: each for each in (DEEPSEEK_OCR, DEEPSEEK_OCR_2, UNLIMITED_OCR)}


def by_architecture(architectures: Sequence[str] | None) -> Checkpoint:
    """The checkpoint that `architectures` of a config.json names; without the key it is DeepSeek-OCR.

    `model_type` does not decide: DeepSeek-OCR-2 has that of DeepSeek-OCR.

    Raises:
        ValueError: another architecture.
    """
    if not architectures:
        return DEEPSEEK_OCR
    named = [architectures] if isinstance(architectures, str) else list(architectures)
    known = {each.architecture: each for each in CHECKPOINTS.values()}
    for name in named:
        if name in known:
            return known[name]
    raise ValueError(
        f"architectures {named} is not a model of this family; it has {', '.join(known)}. "
        "Check that config.json belongs to these weights"
    )
