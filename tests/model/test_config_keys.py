"""Every key of the family's config.json is supported, inert or refused, and a refusal names it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import DeepseekOCRConfig, config_keys
from model.config_check import refusals, unknown
from model.loading import read_config
from model.weight_files import CheckpointError
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import NANO

LANGUAGE = {
    "bos_token_id": 0, "eos_token_id": 1, "first_k_dense_replace": 1, "hidden_size": 1280,
    "intermediate_size": 6848,
    "kv_lora_rank": None, "lm_head": True, "max_position_embeddings": 8192, "moe_intermediate_size": 896,
    "n_group": 1, "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 10,
    "num_experts_per_tok": 6, "num_hidden_layers": 12, "num_key_value_heads": 10, "q_lora_rank": None,
    "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "rm_head": False, "topk_group": 1, "topk_method": "greedy",
    "use_mla": False, "v_head_dim": 0, "vocab_size": 129280,
}  # fmt: skip
#: The official config.json, key by key.
OFFICIAL = {
    "_name_or_path": "deepseek-ai/DeepSeek-OCR",
    "architectures": ["DeepseekOCRForCausalLM"],
    "auto_map": {
        "AutoConfig": "modeling_deepseekocr.DeepseekOCRConfig",
        "AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM",
    },
    "candidate_resolutions": [[1024, 1024]],
    "global_view_pos": "head",
    "language_config": {
        "architectures": ["DeepseekV2ForCausalLM"], "auto_map": {}, **LANGUAGE, "torch_dtype": "bfloat16",
    },
    "model_type": "deepseek_vl_v2",
    "projector_config": {
        "input_dim": 2048, "model_type": "mlp_projector", "n_embed": 1280, "projector_type": "linear",
    },
    "tile_tag": "2D",
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.3",
    "vision_config": {
        "image_size": 1024, "mlp_ratio": 3.7362, "model_name": "deeplip_b_l", "model_type": "vision",
        "width": {
            "clip-l-14-224": {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14, "width": 1024},
            "sam_vit_b": {
                "downsample_channels": [512, 1024], "global_attn_indexes": [2, 5, 8, 11], "heads": 12,
                "layers": 12, "width": 768,
            },
        },
    },
    **LANGUAGE,
}  # fmt: skip


def stored(folder) -> dict:
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "content", [OFFICIAL, stored(NANO), stored(CHECKPOINT), {}], ids=["official", "nano", "golden", "empty"]
)
def test_the_familys_configs_pass_and_every_key_of_them_is_known(content):
    assert refusals(content) == [] and unknown(content) == []


def test_what_transformers_saves_passes(tmp_path):
    """`save_pretrained` of the installed release adds its own keys; 4.46 and 5.23 were tried."""
    config = DeepseekOCRConfig(**OFFICIAL)
    config.save_pretrained(tmp_path)
    content = stored(tmp_path)
    assert refusals(content) == [] and unknown(content) == []
    again = read_config(tmp_path)
    assert (again.sam, again.clip, again.decoder) == (config.sam, config.clip, config.decoder)
    assert again.candidate_resolutions == [[1024, 1024]] and again.tile_tag == "2D"


REFUSED = [
    ("rope_scaling", {"type": "yarn", "factor": 40}),
    ("rope_scaling", {"rope_type": "linear", "factor": 2.0}),
    ("rope_parameters", {"rope_type": "dynamic", "factor": 2.0}), ("rope_parameters", [1]),
    ("partial_rotary_factor", 0.5), ("scoring_func", "sigmoid"), ("hidden_act", "gelu"),
    ("attention_bias", True), ("mlp_bias", True), ("moe_layer_freq", 2),
    ("quantization_config", {"bits": 4}), ("quantization_config", {}), ("sliding_window", 128),
    ("layer_types", ["full_attention", "sliding_attention"]), ("mlp_layer_types", ["dense"] * 12),
    ("head_dim", 64), ("use_mla", True), ("topk_method", "noaux_tc"), ("n_group", 8), ("topk_group", 3),
    ("tie_word_embeddings", True), ("num_nextn_predict_layers", 1), ("attn_logit_softcapping", 30.0),
    ("use_qk_norm", True), ("is_encoder_decoder", True), ("text_config", {"hidden_size": 8}),
    ("num_hidden_layers", 12.0), ("num_hidden_layers", "12"), ("num_hidden_layers", True),
    ("num_hidden_layers", 0), ("num_hidden_layers", 10**9), ("vocab_size", -1), ("hidden_size", None),
    ("rope_theta", 0), ("rope_theta", None),
    ("rms_norm_eps", 1e400), ("norm_topk_prob", 1), ("routed_scaling_factor", "1"), ("language_config", 3),
    ("num_attention_heads", 256), ("num_attention_heads", 1280), ("bos_token_id", 129280),
    ("eos_token_id", 200000),
    ("vision_config", "x"), ("projector_config", [1]), ("architectures", 7),
]  # fmt: skip


TOGETHER = {"head_dim", "mlp_layer_types", "num_attention_heads", "bos_token_id", "eos_token_id"}


@pytest.mark.parametrize("key", sorted({key for key, _ in REFUSED}))
def test_a_refusal_names_the_key_in_both_places(key, tmp_path):
    for value in (value for name, value in REFUSED if name == key):
        for content in (
            {**OFFICIAL, key: value},
            {**OFFICIAL, "language_config": {**OFFICIAL["language_config"], key: value}},
        ):
            if key in (
                "vision_config",
                "projector_config",
                "language_config",
                "text_config",
                "architectures",
            ) and (content["language_config"] != OFFICIAL["language_config"]):
                continue  # no key of the language part
            if key == "num_attention_heads":
                content["num_key_value_heads"] = value
            if key in TOGETHER:
                content[key] = value
            (line, *_) = refusals(content)
            assert key in line and "is not supported" in line
            with pytest.raises(ValueError, match=key):
                DeepseekOCRConfig(**content)
            (tmp_path / "config.json").write_text(json.dumps(content).replace("Infinity", "1e400"))
            with pytest.raises(CheckpointError, match=f"config.json: .*{key}"):
                read_config(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("sam_vit_b", "layers", 10**9),
        ("sam_vit_b", "downsample_channels", [512]),
        ("sam_vit_b", "global_attn_indexes", [1.5]),
        ("sam_vit_b", "mlp_ratio", 0),
        ("sam_vit_b", "use_rel_pos", False),
        ("sam_vit_b", "patch_size", 0),
        ("clip-l-14-224", "hidden_act", "gelu"),
        ("clip-l-14-224", "width", "1024"),
    ],
)
def test_a_refusal_names_the_part(part, key, value):
    vision = json.loads(json.dumps(OFFICIAL["vision_config"]))
    vision["width"][part][key] = value
    (line,) = refusals({**OFFICIAL, "vision_config": vision})
    assert line.startswith(f"vision_config.width.{part}.{key} ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling", None), ("rope_scaling", {"type": "default"}), ("attention_bias", False),
        ("rope_parameters", {"rope_type": "default", "rope_theta": 10000.0}), ("hidden_act", "silu"),
        ("scoring_func", "softmax"), ("sliding_window", None), ("layer_types", ["full_attention"] * 12),
        ("mlp_layer_types", ["dense"] + ["sparse"] * 11), ("head_dim", 128), ("moe_layer_freq", 1),
        ("quantization_config", None), ("v_head_dim", 128), ("attention_dropout", 0.1), ("use_cache", False),
    ],
)  # fmt: skip
def test_values_that_change_nothing_pass(key, value):
    assert refusals({**OFFICIAL, key: value}) == []
    assert DeepseekOCRConfig(**{**OFFICIAL, key: value}).decoder == DeepseekOCRConfig().decoder


def test_rope_theta_may_stand_in_rope_parameters():
    for key in ("rope_parameters", "rope_scaling"):
        given = {**OFFICIAL, key: {"rope_type": "default", "rope_theta": 500000.0}}
        assert DeepseekOCRConfig(**given).decoder.rope_theta == 500000.0
        (line,) = refusals({**given, "rope_theta": 10000.0})
        assert "differ" in line and "rope_theta" in line


@pytest.mark.parametrize("stated", [1, [1]])
def test_the_end_token_is_one_id(stated):
    assert DeepseekOCRConfig(eos_token_id=stated).eos_token_id == 1
    assert DeepseekOCRConfig(eos_token_id=None, language_config={"eos_token_id": stated}).eos_token_id == 1
    assert DeepseekOCRConfig(language_config={"eos_token_id": [7]}).eos_token_id == 7


@pytest.mark.parametrize("stated", [None, "1", "</s>", [1, 2], [], [[1]], 1.0, True, -1, 1 << 40, {"id": 1}])
def test_other_end_tokens_are_refused(stated):
    with pytest.raises(ValueError, match=r"config\.json: eos_token_id .* is not supported: expected the id"):
        DeepseekOCRConfig(eos_token_id=stated)


def test_keys_that_are_in_no_list_are_reported():
    content = {
        **OFFICIAL,
        "my_key": 3,
        "sam": 1,
        "vision_config": {**OFFICIAL["vision_config"], "other": [1]},
    }
    assert unknown(content) == ["my_key", "sam", "vision_config.other"]
    assert refusals(content) == []


def test_unlisted_keys_do_not_replace_attributes(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({**OFFICIAL, "decoder": 1, "to_dict": 2, "validate_parts": 3})
    )
    assert read_config(tmp_path).decoder == DeepseekOCRConfig().decoder


def test_every_key_has_one_state():
    lists = [config_keys.TOP, config_keys.VISION, config_keys.PROJECTOR, *config_keys.ENCODERS.values()]
    lists += config_keys.ONLY_IN.values()
    states = {key.state for keys in lists for key in keys.values()}
    assert states == {config_keys.SUPPORTED, config_keys.INERT, config_keys.REFUSED}
    for keys in lists:
        for name, key in keys.items():
            assert key.state == config_keys.INERT or key.otherwise, f"{name}: what is expected instead?"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(sorted(config_keys.TOP)) | st.text(max_size=10)


@pytest.mark.fuzz
@given(st.dictionaries(NAMES, JSON, max_size=6), st.sampled_from([None, "language_config", "vision_config"]))
def test_any_config_is_read_or_refused(tmp_path_factory, given_keys, part):
    """No other exception, one line for each key, and what passes has sizes in bounds."""
    content = {**OFFICIAL, **(given_keys if part is None else {part: {**OFFICIAL[part], **given_keys}})}
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    try:
        config = read_config(folder)
    except CheckpointError as error:
        assert "config.json" in str(error) and len(str(error)) < 20_000
        assert all(line.isprintable() for line in str(error).splitlines())
    else:
        assert refusals(content) == []
        assert 1 <= config.decoder.layers <= config_keys.LAYERS and isinstance(config.eos_token_id, int)
