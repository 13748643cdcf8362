"""Names, shapes, streaming load and save, and the messages for weights that cannot be used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.loading import check_folder, official_shapes
from model.official import DEEPSEEK_OCR
from model.safetensors_io import CheckpointError
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import DATA, ROOT

OFFICIAL = json.loads((DATA / "official_weight_shapes.json").read_text())
WEIGHTS = CHECKPOINT / "model.safetensors"


def test_default_config_is_the_official_one():
    assert official_shapes(DeepseekOCRConfig()) == OFFICIAL
    parameters = sum(torch.Size(shape).numel() for shape in OFFICIAL.values())
    assert (len(OFFICIAL), parameters) == (DEEPSEEK_OCR.tensors, DEEPSEEK_OCR.parameters)
    assert parameters * getattr(torch, DEEPSEEK_OCR.dtype).itemsize == DEEPSEEK_OCR.bytes


def test_tiny_config_has_the_tiny_names():
    config, entries = check_folder(CHECKPOINT)
    stored = json.loads((CHECKPOINT / "weight_shapes.json").read_text())
    assert official_shapes(config) == stored
    assert entries.keys() == stored.keys()


def test_official_config_json_without_extra_keys_gives_the_official_sizes():
    """The official file has no keys for the values that the original hard-codes."""
    official = {
        "model_type": "deepseek_vl_v2",
        "torch_dtype": "bfloat16",
        "vision_config": {
            "image_size": 1024,
            "mlp_ratio": 3.7362,
            "width": {
                "clip-l-14-224": {
                    "heads": 16,
                    "image_size": 224,
                    "layers": 24,
                    "patch_size": 14,
                    "width": 1024,
                },
                "sam_vit_b": {
                    "downsample_channels": [512, 1024],
                    "global_attn_indexes": [2, 5, 8, 11],
                    "heads": 12,
                    "layers": 12,
                    "width": 768,
                },
            },
        },
        "projector_config": {"input_dim": 2048, "n_embed": 1280, "projector_type": "linear"},
        "language_config": {"hidden_size": 1280, "vocab_size": 129280},
        "hidden_size": 1280,
        "vocab_size": 129280,
    }
    assert official_shapes(DeepseekOCRConfig(**official)) == OFFICIAL


def test_top_level_sizes_win_over_language_config():
    config = DeepseekOCRConfig(
        num_hidden_layers=3, language_config={"num_hidden_layers": 7, "vocab_size": 99}
    )
    assert (config.decoder.layers, config.decoder.vocab) == (3, 99)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_size": 1281}, "hidden_size 1281"),
        ({"use_mla": True}, "use_mla"),
        ({"topk_method": "noaux_tc"}, "topk_method"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"num_experts_per_tok": 65}, "num_experts_per_tok 65"),
        ({"projector_config": {"projector_type": "mlp_gelu"}}, "projector_type"),
        ({"projector_config": {"input_dim": 7}}, "input_dim"),
        (
            {"vision_config": {"width": {"sam_vit_b": {"downsample_channels": [512, 512]}}}},
            "downsample_channels",
        ),
    ],
)
def test_configs_that_cannot_be_are_refused_by_key(change, word):
    with pytest.raises(ValueError, match=word):
        DeepseekOCRConfig(**change)


def same(a: Path, b: Path) -> None:
    a, b = load_folder(a), load_folder(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    return {name: t for path in folder.glob("*.safetensors") for name, t in load_file(path).items()}


def test_save_and_load_are_bit_equal(golden_model, tmp_path):
    golden_model.save_pretrained(tmp_path)
    same(tmp_path, CHECKPOINT)
    again = DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    for (name, ours), (_, theirs) in zip(
        again.named_parameters(), golden_model.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert again.config.decoder == golden_model.config.decoder
    assert again.config.sam == golden_model.config.sam and again.config.clip == golden_model.config.clip
    assert again.config.image_token_id == 500


def test_shards_are_written_indexed_and_read(golden_model, tmp_path):
    golden_model.save_pretrained(tmp_path, shard_bytes=1_000_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 3 and files[0].startswith("model-00001-of-")
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == sum(t.numel() * 4 for t in load_folder(tmp_path).values())
    same(tmp_path, CHECKPOINT)
    DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    golden_model.save_pretrained(tmp_path)  # with fewer files, the old ones must be removed
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_loading_converts_as_torch_does(golden_model, dtype):
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, dtype=dtype)
    for (name, ours), (_, theirs) in zip(
        model.named_parameters(), golden_model.named_parameters(), strict=True
    ):
        assert torch.equal(ours, theirs.to(dtype)), name


def test_the_originals_name_for_the_dtype_works():
    assert (
        DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, torch_dtype=torch.float16).dtype == torch.float16
    )


def test_plan_exchanges_slots_and_refuses_unknown_ones(golden_model):
    calls = []

    def counted(x, *rest):
        calls.append(x.shape)
        return torch.nn.functional.conv2d(x, *rest)

    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, plan={"conv2d": counted})
    with torch.no_grad():
        model.model.encode_views(torch.zeros(1, 3, 512, 512))
    assert len(calls) == 5  # six convolutions are stored, one is never used
    with pytest.raises(ValueError, match="no slot named 'conv3d'.*conv2d"):
        DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, plan={"conv3d": counted})


def test_position_ids_of_resaved_copies_are_ignored(tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "copy")
    weights = load_file(WEIGHTS)
    weights["model.vision_model.embeddings.position_ids"] = torch.arange(257)[None]
    save_file(weights, tmp_path / "copy" / "model.safetensors")
    DeepseekOCRForCausalLM.from_pretrained(tmp_path / "copy")


def test_our_files_are_ordinary_safetensors_and_theirs_are_ours(golden_model, tmp_path):
    """Written by us, read by the library (see `same`); written by it in another order, read by us."""
    weights = load_file(WEIGHTS)
    shutil.copy(CHECKPOINT / "config.json", tmp_path)
    save_file(dict(reversed(list(weights.items()))), tmp_path / "model-00001-of-000001.safetensors")
    model = DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(model.lm_head.weight, golden_model.lm_head.weight)


# ---- faults: each folder has a clear message
# -----------------------------------------------------------------


def edit_weights(change):
    def spoil(folder):
        weights = load_file(WEIGHTS)
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return spoil


def edit_file(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def rename(folder, new):
    (folder / "model.safetensors").rename(folder / new)


def index_with(weight_map):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )


def twice(folder):
    save_file({"lm_head.weight": torch.zeros(2)}, folder / "again.safetensors")


GATE = "model.layers.1.mlp.gate.weight"
FAULTS = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "config not json": (edit_file("config.json", lambda b: b[:50]), r"config\.json: not valid JSON"),
    "config a list": (
        edit_file("config.json", lambda b: b"[]"),
        r"config\.json: a JSON list, expected an object",
    ),
    "config of another network": (
        edit_file("config.json", lambda b: b.replace(b'"use_mla": false', b'"use_mla": true')),
        r"config\.json: use_mla",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no \*\.safetensors here"),
    "pickles only": (lambda f: rename(f, "pytorch_model.bin"), "pytorch_model.bin.*refused"),
    "download going on": (
        lambda f: rename(f, "model.safetensors.part"),
        r"not finished \(model\.safetensors\.part\)",
    ),
    "half a file": (edit_file("model.safetensors", lambda b: b[: len(b) // 2]), "half-downloaded"),
    "last byte lost": (edit_file("model.safetensors", lambda b: b[:-1]), "half-downloaded"),
    "bytes behind the end": (
        edit_file("model.safetensors", lambda b: b + b"xx"),
        "longer than its header says",
    ),
    "empty file": (edit_file("model.safetensors", lambda b: b""), "not a safetensors file"),
    "three bytes": (edit_file("model.safetensors", lambda b: b[:3]), "not a safetensors file"),
    "head cut": (edit_file("model.safetensors", lambda b: b[:100]), "not a safetensors file"),
    "an HTML page": (
        edit_file("model.safetensors", lambda b: b"<html>404</html>" * 9),
        "not a safetensors file but a web page",
    ),
    "quantised to integers": (
        edit_weights(lambda w: w.update({GATE: w[GATE].to(torch.int8)})),
        rf"1 tensors hold integers, first {GATE} \(torch.int8\): a quantised copy",
    ),
    "git-lfs pointer": (
        edit_file(
            "model.safetensors", lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        "git-lfs pointer",
    ),
    "a tensor missing": (edit_weights(lambda w: w.pop(GATE)), f"1 missing: {GATE}"),
    "a tensor too many": (
        edit_weights(lambda w: w.update(extra=torch.zeros(1))),
        "1 not part of this network: extra",
    ),
    "a tensor misshapen": (
        edit_weights(lambda w: w.update({GATE: torch.zeros(9, 96)})),
        rf"{GATE} is \[9, 96\], expected \[8, 96\]",
    ),
    "an expert too few": (
        edit_weights(lambda w: [w.pop(name) for name in list(w) if ".experts.7." in name]),
        r"6 missing: model\.layers\.1\.mlp\.experts\.7\.gate_proj\.weight.*…",
    ),
    "complex numbers": (
        edit_file("model.safetensors", lambda b: b.replace(b'"F32"', b'"C64"', 1)),
        "has dtype C64|damaged",
    ),
    "one name twice": (twice, "lm_head.weight is in again.safetensors and in model.safetensors"),
    "a shard missing": (
        index_with({"lm_head.weight": "model.safetensors", "model.norm.weight": "model-2.safetensors"}),
        r"1 of 2 weight files.*model-2\.safetensors",
    ),
    "index not json": (
        lambda f: (f / "model.safetensors.index.json").write_text("{"),
        r"index\.json: not a valid index",
    ),
    "index leads out": (index_with({"lm_head.weight": "../other.safetensors"}), "leads out of the folder"),
    "index names too much": (
        index_with({"lm_head.weight": "model.safetensors", "ghost": "model.safetensors"}),
        "names 1 tensors that are not in their file: ghost",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_folders(fault, tmp_path):
    spoil, message = FAULTS[fault]
    folder = tmp_path / "weights"
    shutil.copytree(CHECKPOINT, folder)
    spoil(folder)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        DeepseekOCRForCausalLM.from_pretrained(folder)
    assert str(folder) in str(caught.value), "the message must say where"


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match="config.json: a file, not a folder"):
        DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT / "config.json")
    with pytest.raises(CheckpointError, match="no such folder.*model/README.md"):
        DeepseekOCRForCausalLM.from_pretrained(tmp_path / "nothing")


# ---- memory
# -----------------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys, torch
from model import DeepseekOCRForCausalLM
torch.set_num_threads(1)
DeepseekOCRForCausalLM.from_pretrained(sys.argv[1])                       # warm: libraries, allocator
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = DeepseekOCRForCausalLM.from_pretrained(sys.argv[2], dtype=getattr(torch, sys.argv[3]))
print(peak() - before, sum(p.numel() * p.element_size() for p in model.parameters()))
"""


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_loading_takes_the_model_and_one_tensor(tmp_path, dtype):
    """Peak resident memory while loading 180 MB, measured by the system in a separate process."""
    config = DeepseekOCRConfig(
        **{
            **json.loads((CHECKPOINT / "config.json").read_text()),
            "hidden_size": 768,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "moe_intermediate_size": 768,
            "n_routed_experts": 8,
            "projector_config": {},
        }
    )
    model = DeepseekOCRForCausalLM.random(config)
    model.save_pretrained(tmp_path, shard_bytes=100_000_000)
    layer = sum(p.numel() for p in model.model.layers[1].mlp.experts.parameters()) * 4
    del model
    out = subprocess.run(
        [sys.executable, "-c", MEASURE, str(CHECKPOINT), str(tmp_path), dtype],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    grown, size = map(int, out.stdout.split())
    assert size > (170e6 if dtype == "float32" else 85e6)
    assert grown <= size + layer, f"{grown / 1e6:.0f} MB for a model of {size / 1e6:.0f} MB"
