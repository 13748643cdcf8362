"""Every instrument takes every model of the family."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch

from deskocr_kit.benchmark import counts, limits
from deskocr_kit.benchmark.pages import Subject
from deskocr_kit.benchmark.race import compare_peer
from deskocr_kit.benchmark.spec import BenchSpec
from deskocr_kit.commands.weights import facts_of
from deskocr_kit.compare.cache import compare_caches
from deskocr_kit.compare.headroom import headroom
from deskocr_kit.compare.ladder import climb
from deskocr_kit.compare.logits import teacher_forced
from deskocr_kit.operator_census.ocr_model import census_ocr
from deskocr_kit.operators.plan import Plan, auto, fingerprint, network
from deskocr_kit.operators.prove.probes import Sizes, probes
from deskocr_kit.operators.prove.proof import config_of, prove
from deskocr_kit.prediction import predict
from deskocr_kit.quantise.apply import quantise
from deskocr_kit.reading.checkpoints import find_checkpoint, named, official_size
from deskocr_kit.reading.options import PageOptions
from deskocr_kit.reading.reader import Reader
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.examination import examine
from model.official import CHECKPOINTS
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.paths import NANO

SECOND, UNLIMITED = NAMES[1:]
NEW = [7, 8, 9, 10, 11, 12, 13, 14]


def model_of(name: str, **how) -> DeepseekOCRForCausalLM:
    return DeepseekOCRForCausalLM.random(tiny(name, 4 if name == UNLIMITED else None), **how)


def given_for(model) -> dict:
    return batch(model.config, [[(2, 1)]])


def test_the_second_encoder_is_in_the_census_and_the_decoder_is_the_same():
    """Launches of one decoded token do not depend on the model; those of vision do."""
    found = {name: census_ocr(tiny(name, 4 if name == UNLIMITED else None)) for name in NAMES}
    decode = {census.launches("decode") for census in found.values()}
    assert len(decode) == 1 and len({census.syncs("decode") for census in found.values()}) == 1
    modules = {entry.call.module for entry in found[SECOND].select("vision")}
    assert any("qwen2_model" in module for module in modules)
    assert not any("vision_model" in module for module in modules)


def test_a_token_launches_as_much_with_a_ring_that_is_full():
    """Counted over steps that go around a ring of four tokens."""
    model = model_of(UNLIMITED)
    found = counts.count(model, given_for(model), 12)
    full = model_of(NAMES[0])
    others = counts.count(full, given_for(full), 12)
    assert found["phases"]["token"]["launches"] == others["phases"]["token"]["launches"]


@pytest.mark.slow  # dry runs of every plan at the official size
@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_census_and_prediction_at_the_official_size(name):
    config = DeepseekOCRConfig.official(name)
    made = predict("910B2", config, subject=name)
    assert "PREDICTION" in repr(made).upper() and name in repr(made)


def test_probes_of_the_query_encoder():
    sizes = Sizes.of(DeepseekOCRConfig.official(SECOND))
    assert (sizes.view, sizes.vision) == (1024, 6 * 144 + 256 + 1)
    found = {(probe.slot, probe.name): probe for probe in probes(sizes)}
    for slot in ("attention", "rms_norm", "rotary", "swiglu"):
        assert any(slot == of and "queries" in name for of, name in found), slot
    assert not any(slot == "quick_gelu" and probe.real for (slot, _), probe in found.items())
    q, k, _, mask, causal = found["attention", "queries, shared keys"].make(torch.Generator().manual_seed(0))
    assert q.shape == k.shape == (1, 14, 512, 64) and mask.shape == (1, 1, 512, 512) and causal is False
    assert k[0, 0].equal(k[0, 6]) and not k[0, 0].equal(k[0, 7])  # seven heads share a key


@pytest.mark.slow  # eight seconds; tests/operators/test_prove.py makes a plan by default
def test_prove_makes_a_plan_for_this_model_only(tmp_path, monkeypatch, capsys):
    config = tiny(SECOND)
    report = prove("cpu", ["fp32"], "tiny", ["attention", "rms_norm", "swiglu"], 1, config=config)
    assert not report.faults()
    report.plan.save(tmp_path / "plan.json")
    monkeypatch.setenv("DESKOCR_PLAN", str(tmp_path / "plan.json"))
    assert set(auto(DeepseekOCRForCausalLM.random(config))) == {"attention", "rms_norm", "swiglu"}
    assert auto(model_of(NAMES[0])) == {}
    assert "does not fit this machine (network:" in capsys.readouterr().err
    assert Plan.load(tmp_path / "plan.json").fingerprint == fingerprint(torch.device("cpu"), config)


def test_the_fingerprint_of_deepseek_ocr_is_as_before():
    texts = {name: network(DeepseekOCRConfig.official(name)) for name in NAMES}
    assert len({*texts.values()}) == 3
    assert texts[NAMES[0]] == "sam 768x12/14, clip 1024x16, lm 1280x10, experts 6 of 64 x 896"


@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_compare_names_a_planted_fault_in_the_encoder(name):
    model, planted = model_of(name), model_of(name)
    part = "qwen2_model" if name == SECOND else "vision_model"
    with torch.no_grad():
        weight = getattr(planted.model, part).layers[1].mlp
        (weight.down_proj if name == SECOND else weight.fc2).weight.mul_(1.5)
    given = given_for(model)
    assert climb(model, model_of(name), given).first is None
    assert f"model.{part}.layers.1.mlp" in climb(model, planted, given).first.module


@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_logits_cache_and_headroom(name):
    model, half = model_of(name), model_of(name, dtype=torch.bfloat16)
    given = given_for(model)
    assert teacher_forced(model, model_of(name), given, NEW).top1 == 1
    assert all(row.first is None for row in compare_caches(model, model_of(name), given, NEW))
    assert len(compare_caches(model, half, given, NEW)) == model.config.decoder.layers
    found = headroom(model, lambda: model(**given))
    assert any("qwen2_model" in layer for layer in found.layers) == (name == SECOND)


def test_teacher_forced_logits_see_the_window():
    """What `generate` chooses is what the forced logits rank first, also behind the window."""
    model = model_of(UNLIMITED, seed=3)
    given = given_for(model)
    new = model.generate(**given, max_new_tokens=20, eos_token_id=None)[0, given["input_ids"].shape[1] :]
    rows = teacher_forced(model, model, given, new.tolist()).rows
    assert [row.theirs for row in rows] == new.tolist()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_quantised(name, bits):
    model = model_of(name, seed=3)
    given = given_for(model)
    view = given["images"][0][1]
    with torch.no_grad():
        plain = model.model.encode_views(view)
    errors = quantise(model, bits)
    assert any("qwen2_model.layers.0.self_attn.qkv_proj" in error.name for error in errors) == (
        name == SECOND
    )
    with torch.no_grad():
        away = (model.model.encode_views(view) - plain).norm() / plain.norm()
    assert 0 < away < {8: 0.05, 4: 0.7}[bits]
    model.generate(**given, max_new_tokens=6, eos_token_id=None)


@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_limits_know_the_weights_of_the_tower(name):
    model = model_of(name)
    work = limits.work(model, given_for(model))
    parts = ("model.sam", "model.vision", "model.qwen2", "model.projector")
    tower = sum(p.nbytes for key, p in model.named_parameters() if key.startswith(parts))
    assert work["vision"]["weight_bytes"] == tower
    assert all(work[phase]["flop"] > 0 for phase in work)


@pytest.mark.parametrize("name", NAMES)
def test_weights_check_names_the_model(name, tmp_path):
    model_of(name).save_pretrained(tmp_path)
    made = examine(tmp_path)
    assert facts_of(made)["model"] == name and not made.official
    rows = made.findings
    assert {row.name: row.status for row in rows}["tensors"] == "OK"
    encoder = "query encoder 3 x 48" if name == SECOND else "CLIP 3 x 48"
    assert encoder in next(row.seen for row in rows if row.name == "config")


def test_names_of_checkpoints_and_sizes():
    assert list(named()) == ["nano", *CHECKPOINTS]
    assert find_checkpoint("unlimited-ocr").name == "unlimited-ocr"
    assert official_size("official") == "deepseek-ocr" and official_size("nano") is None
    assert official_size("official:unlimited-ocr") == "unlimited-ocr"
    assert config_of("official-sizes:deepseek-ocr-2").checkpoint is CHECKPOINTS[SECOND]
    with pytest.raises(ValueError, match="no model named 'nano'; choose one of deepseek-ocr, deepseek-ocr-2"):
        official_size("official:nano")


def test_a_page_from_file_to_text_with_deepseek_ocr_2(tmp_path):
    """Random weights with nano's tokenizer: every step of a page runs, and the text is whatever it is."""
    nano = json.loads((NANO / "config.json").read_text())
    config = tiny(
        SECOND,
        vocab_size=nano["vocab_size"],
        bos_token_id=nano["bos_token_id"],
        eos_token_id=nano["eos_token_id"],
        image_token_id=nano["image_token_id"],
    )
    DeepseekOCRForCausalLM.random(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / file, tmp_path)
    reader = Reader.load(tmp_path, "cpu", "fp32")
    page = next(iter(sorted((NANO / "pages").glob("*.png"))))
    reading = reader.read(page, mode="small", max_new_tokens=3)
    assert reading.image_tokens == 145 and len(reading.ids) <= 3
    compared = compare_peer(
        BenchSpec(repeats=1),
        reader,
        PageOptions(mode="small", max_tokens=3),
        [Subject("a", page, None, False)],
    )
    if importlib.util.find_spec("transformers.models.deepseek_ocr2"):
        assert compared["name"] == "transformers deepseek_ocr2"
        assert compared["tokens_alike"]["count"] == compared["tokens_alike"]["of"] > 0
    else:
        assert "deepseek_ocr2" in compared["unavailable"]
    text = reader.model.infer(
        reader.tokenizer, "<image>\nFree OCR.", page, image_size=768, crop_mode=False, max_new_tokens=3
    )
    assert isinstance(text, str)
    with pytest.raises(ValueError, match="reads one page per prompt; Unlimited-OCR reads several"):
        reader.read_together([page, page])
