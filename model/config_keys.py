"""Every key that a config.json of this family may have: supported, inert or refused. No torch here.

    supported   the network reads it; the list states which values it may have
    inert       it does not change what the network computes, or nobody reads it
    refused     it would change the network, which has no such variant; the list states the values that mean
                "not used", which are accepted

A key that is in no list is reported by `deskocr weights check` and is not used. To implement a key, move it
to `supported` here and read it in config.py. What only one architecture supports stands in ONLY_IN.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .untrusted import shown

SUPPORTED, INERT, REFUSED = "supported", "inert", "refused"
LAYERS, SIDE, TOKENS = 512, 1 << 16, 1 << 24  # far above every official size, far below what ends the memory


@dataclass(frozen=True)
class Key:
    """One key. `accepts`: whether a value is allowed; `otherwise`: what a message says about other values."""

    state: str
    accepts: Callable[[Any], bool]
    otherwise: str = ""


def is_integer(value) -> bool:
    return type(value) is int  # True is an int for isinstance


def is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30  # no infinity, no NaN


def size(high: int = SIDE, low: int = 1) -> Key:
    return Key(
        SUPPORTED,
        lambda v: is_integer(v) and low <= v <= high,
        f"expected a whole number from {low} to {high}",
    )


def number(high: float, low: float = 0.0) -> Key:
    return Key(
        SUPPORTED, lambda v: is_number(v) and low <= v <= high, f"expected a number, {low:g} to {high:g}"
    )


def sizes(high: int, count: int | None = None, low: int = 0) -> Key:
    def accepts(value) -> bool:
        right = isinstance(value, list | tuple) and len(value) <= LAYERS
        return (
            right
            and (count is None or len(value) == count)
            and all(is_integer(each) and low <= each <= high for each in value)
        )

    how_many = "" if count is None else f"{count} "
    return Key(SUPPORTED, accepts, f"expected a list of {how_many}whole numbers from {low} to {high}")


def only(*values, because: str = "this network has no such variant") -> Key:
    return Key(REFUSED, lambda v: any(type(v) is type(each) and v == each for each in values), because)


def plain_rope(value) -> bool:
    """Whether a description of the rotary embedding means the plain one."""
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) - {"rope_type", "type", "rope_theta"}:
        return False
    theta = value.get("rope_theta", 1e4)
    kinds = [value[key] for key in ("rope_type", "type") if key in value]
    return all(each == "default" for each in kinds) and is_number(theta) and 1 <= theta <= 1e12


def all_equal(word: str) -> Callable[[Any], bool]:
    """Accepts null and a list that holds only this word."""
    return lambda v: v is None or (isinstance(v, list) and all(each == word for each in v))


FLAG = Key(SUPPORTED, lambda v: isinstance(v, bool), "expected true or false")
IGNORED = Key(INERT, lambda v: True)
OFF = only(None, False)
ROPE = Key(REFUSED, plain_rope, "only the plain rotary embedding is implemented (rope_type default)")

#: Keys of the top level and of `language_config`, which repeats them.
LANGUAGE: dict[str, Key] = {
    "hidden_size": size(),
    "intermediate_size": size(1 << 20),
    "moe_intermediate_size": size(1 << 20),
    "num_hidden_layers": size(LAYERS),
    "num_attention_heads": size(1024),
    "num_key_value_heads": size(1024),
    "n_routed_experts": size(1024),
    "n_shared_experts": size(64),
    "num_experts_per_tok": size(1024),
    "first_k_dense_replace": size(LAYERS, low=0),
    "vocab_size": size(TOKENS),
    "max_position_embeddings": size(TOKENS),
    "rms_norm_eps": number(1.0),
    "rope_theta": number(1e12, low=1.0),
    "norm_topk_prob": FLAG,
    "routed_scaling_factor": number(1e6),
    "bos_token_id": Key(SUPPORTED, lambda v: v is None or single_id(v) == v, "expected an id or null"),
    "eos_token_id": Key(
        SUPPORTED,
        lambda v: v is None or single_id(v) is not None,
        "expected the id of the one end token, which is 1 for the official tokenizer",
    ),
    "rope_parameters": ROPE,  # transformers 5: rope_theta and rope_scaling in one
    "rope_scaling": ROPE,
    "rope_interleave": OFF,
    "partial_rotary_factor": only(None, 1, 1.0),
    "scoring_func": only(None, "softmax", because="only softmax is implemented"),
    "topk_method": only("greedy", because="only greedy is implemented"),
    "n_group": only(None, 0, 1, because="experts are not chosen by groups here"),
    "topk_group": only(None, 0, 1, because="experts are not chosen by groups here"),
    "moe_layer_freq": only(None, 1, because="every layer after the dense ones has experts here"),
    "num_nextn_predict_layers": only(None, 0),
    "hidden_act": only(None, "silu", because="only silu is implemented"),
    "attention_bias": OFF,
    "mlp_bias": OFF,
    "qk_layernorm": OFF,
    "use_qk_norm": OFF,
    "attn_logit_softcapping": only(None),
    "final_logit_softcapping": only(None),
    "query_pre_attn_scalar": only(None),
    "logit_scale": only(None, 1, 1.0),
    "attention_multiplier": only(None),
    "embedding_multiplier": only(None, 1, 1.0),
    "residual_multiplier": only(None, 1, 1.0),
    "clip_qkv": only(None),
    "alibi": OFF,
    "sliding_window": only(None, because="attention sees the whole text in this architecture"),
    "sliding_window_size": only(None, because="attention sees the whole text in this architecture"),
    "use_sliding_window": OFF,
    "layer_types": Key(REFUSED, all_equal("full_attention"), "only full_attention is implemented here"),
    "use_mla": only(False, None, because="this network has plain multi-head attention"),
    "lm_head": only(True, None),
    "rm_head": OFF,
    "tie_word_embeddings": only(False, None, because="the output matrix has its own weights here"),
    "quantization_config": only(None, because="quantised copies are not supported; get the original"),
    "compression_config": only(None, because="quantised copies are not supported; get the original"),
    **dict.fromkeys(  # read with use_mla only, which is refused
        ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), IGNORED
    ),
    **dict.fromkeys(  # of training, of caches, of several devices
        """
        attention_dropout hidden_dropout aux_loss_alpha seq_aux initializer_range use_cache
        output_router_logits router_aux_loss_coef pretraining_tp ep_size max_window_layers
        pad_token_id cache_implementation
        """.split(),
        IGNORED,
    ),
}

#: What PretrainedConfig writes into every file, from 4.46 to 5.23. It never gets them back, see
#: config_check.without_noise.
NOISE: dict[str, Key] = dict.fromkeys(
    """
    transformers_version output_hidden_states output_attentions return_dict dtype torch_dtype
    id2label label2id num_labels problem_type chunk_size_feed_forward _attn_implementation
    attn_implementation _commit_hash _attn_implementation_autoset _name_or_path auto_map
    use_bfloat16 torchscript tokenizer_class prefix finetuning_task task_specific_params
    pruned_heads sep_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
    suppress_tokens begin_suppress_tokens bad_words_ids max_length min_length do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    num_return_sequences output_scores return_dict_in_generate remove_invalid_values
    exponential_decay_length_penalty tf_legacy_loss
    """.split(),
    IGNORED,
)
NOISE |= dict.fromkeys(
    """
    is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size
    tie_encoder_decoder
    """.split(),
    OFF,
)

PART = Key(SUPPORTED, lambda v: v is None or isinstance(v, dict), "expected an object")
TOP: dict[str, Key] = {
    **LANGUAGE,
    **NOISE,
    "architectures": Key(SUPPORTED, lambda v: v is None or is_names(v), "expected a list of class names"),
    "model_type": Key(INERT, lambda v: v is None or isinstance(v, str), "expected text"),
    "image_token_id": size(TOKENS, low=0),
    "vision_config": PART,
    "projector_config": PART,
    "language_config": PART,
    "text_config": only(
        None,
        because="this is the layout of the classes in transformers; the official one has language_config",
    ),
    **dict.fromkeys(("candidate_resolutions", "global_view_pos", "tile_tag"), IGNORED),
}
VISION: dict[str, Key] = {
    **NOISE,
    "image_size": size(1 << 14),
    "width": PART,
    **dict.fromkeys(("mlp_ratio", "model_name", "model_type"), IGNORED),
}
#: {key in vision_config.width: the keys of that encoder}
ENCODERS: dict[str, dict[str, Key]] = {
    "sam_vit_b": {
        "width": size(),
        "layers": size(LAYERS),
        "heads": size(1024),
        "global_attn_indexes": sizes(LAYERS),
        "downsample_channels": sizes(SIDE, count=2, low=1),
        "mlp_ratio": number(1024.0, low=0.01),
        "layer_norm_eps": number(1.0),
        "patch_size": size(1024),
        "window_size": size(1024),
        "neck_channels": size(),
        "hidden_act": only(None, "gelu"),
        "qkv_bias": only(None, True),
        "use_rel_pos": only(None, True),
        "use_abs_pos": only(None, True),
    },
    "clip-l-14-224": {
        "width": size(),
        "layers": size(LAYERS),
        "heads": size(1024),
        "image_size": size(1 << 14),
        "patch_size": size(1024),
        "intermediate_size": size(1 << 20),
        "layer_norm_eps": number(1.0),
        "hidden_act": only(None, "quick_gelu"),
    },
    "qwen2-0-5b": {
        "dim": size(),
        "layers": size(LAYERS),
        "heads": size(1024),
        "kv_heads": size(1024),
        "intermediate_size": size(1 << 20),
        "rms_norm_eps": number(1.0),
        "rope_theta": number(1e12, low=1.0),
        "hidden_act": only(None, "silu"),
        "rope_scaling": ROPE,
    },
}
PROJECTOR: dict[str, Key] = {
    **NOISE,
    "input_dim": size(1 << 20),
    "n_embed": size(1 << 20),
    "projector_type": only("linear", because="only linear is implemented"),
    "token_pooling": OFF,
    **dict.fromkeys(("model_type", "mlp_ratio", "depth", "downsample_ratio"), IGNORED),
}

WINDOW = Key(
    SUPPORTED,
    lambda v: v is None or (is_integer(v) and 1 <= v <= TOKENS),
    "expected a whole number of at least 1",
)
#: {entry of `architectures`: the keys of the language part that it has instead}
ONLY_IN: dict[str, dict[str, Key]] = {
    "UnlimitedOCRForCausalLM": {
        "sliding_window": WINDOW,
        "sliding_window_size": WINDOW,
        "layer_types": Key(
            REFUSED,
            all_equal("reference_sliding_attention"),
            "only reference_sliding_attention is implemented here",
        ),
    }
}
MODEL_TYPES = {"deepseek_vl_v2", "DeepseekOCR", "deepseek_ocr", "unlimited-ocr", "unlimited_ocr"}


def is_names(value) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and all(isinstance(each, str) for each in names)


def single_id(value) -> int | None:
    """The token id that `value` states: a number, or a list with one number. None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if is_integer(value) and 0 <= value < TOKENS else None


def brief(value) -> str:
    """A value for a message: as in the file, on one line, at most 60 characters."""
    try:
        return shown(json.dumps(value, ensure_ascii=False), 60)
    except (TypeError, ValueError, RecursionError):
        return shown(str(value), 60)
