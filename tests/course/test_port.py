"""The instruments on other models: their own calls proved, their cache kept, their faults named."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn as nn

from deskocr_kit.compare.ladder import climb
from deskocr_kit.compare.trace import keep, move_to
from deskocr_kit.course import example_llava as guest
from deskocr_kit.course.port_report import Port, missing
from deskocr_kit.operator_census.any_module import census
from deskocr_kit.operators.adapt.module import adapt
from deskocr_kit.operators.plan import Plan
from deskocr_kit.operators.prove.proof import prove_module
from deskocr_kit.operators.substitutes import registry
from deskocr_kit.operators.substitutes.registry import candidates
from model.slots import Operator


@pytest.fixture(scope="module")
def model():
    return guest.build_llava()


@pytest.fixture(scope="module")
def given():
    return guest.llava_inputs()


@pytest.fixture(scope="module")
def proof(model, given):
    return prove_module(model, lambda m: m(**given), "cpu", ["fp32"], repeats=1)


def test_its_own_calls_are_proved(model, proof):
    real = {(row.slot, row.probe) for row in proof.rows if row.real}
    places = {place for slot, place in real if slot == "conv2d"}  # differently nested in transformers 4 and 5
    assert any(place.endswith("embeddings.patch_embedding") for place in places)
    assert any(slot == "masked_scatter_" and "modeling_llava.py" in place for slot, place in real)
    assert any(not row.real for row in proof.rows), "the hard cases are asked too"
    assert proof.faults() == []
    assert {row.slot for row in proof.rows} == {"conv2d", "masked_scatter_"}
    assert "LlavaForConditionalGeneration" in proof.plan.fingerprint["network"]


def test_the_plan_is_for_these_weights_only(model, given, proof):
    from deskocr_kit.operators.prove.module_probes import describe

    assert describe(model) == proof.plan.fingerprint["network"]
    assert describe(nn.Linear(2, 3)) != describe(nn.Linear(2, 4))


def test_a_wrong_substitute_is_no_part_of_the_plan(model, given, monkeypatch):
    right = candidates("conv2d")["patchify"]
    wrong = Operator(lambda x, weight, *more: right(x, weight * 1.01, *more), right.supports)
    monkeypatch.setitem(registry.PORTABLE["conv2d"], "patchify", wrong)
    report = prove_module(model, lambda m: m(**given), "cpu", ["fp32"], repeats=1, hard=False)
    assert any("patchify" in fault for fault in report.faults())
    assert "patchify" not in report.plan.names("float32")["conv2d"].values()


def speech():
    """A tiny Whisper: two Conv1d before a transformer."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in
             (("layers", 1), ("attention_heads", 2), ("ffn_dim", 48))}  # fmt: skip
    config = WhisperConfig(
        d_model=32, vocab_size=100, num_mel_bins=8, max_source_positions=20, max_target_positions=20,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **sizes,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config), {
        "input_features": torch.randn(1, 8, 40),
        "decoder_input_ids": torch.tensor([[1, 5, 9]]),
    }


def picture():
    """A tiny SigLIP tower: its patch embedding has padding="valid"."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, image_size=32,
        patch_size=8,
    )  # fmt: skip
    return SiglipVisionModel(config), {"pixel_values": torch.randn(1, 3, 32, 32)}


@pytest.mark.parametrize(("build", "convolutions"), [(speech, 2), (picture, 1)])
def test_other_peoples_convolutions(build, convolutions):
    torch.manual_seed(0)
    other, given = build()
    other.eval()
    run = lambda m: m(**given)[0]  # noqa: E731
    # The fixture `proof` has the hard cases, which do not depend on a model.
    proof = prove_module(other, run, "cpu", ["fp32"], repeats=1, hard=False)
    assert proof.faults() == [] and len({r.probe for r in proof.rows if r.real}) == convolutions
    with torch.no_grad():
        before = run(other)
        for name in ("unfold_einsum", "im2row"):
            with adapt(other, {"conv2d": name}) as adapted:
                assert len(adapted.exchanged) == convolutions and not adapted.left
                assert (run(other) - before).norm() < 1e-5 * before.norm()
        assert torch.equal(run(other), before)


def test_nothing_to_exchange_is_an_empty_proof_and_a_whole_report(tmp_path):
    """As any language model: no convolution, no masked_scatter."""
    model, x = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.ones(1, 2)
    run = lambda m: m(x)  # noqa: E731
    proof = prove_module(model, run, "cpu", ["fp32", "fp16"], repeats=1)
    assert proof.rows == [] and proof.faults() == [] and proof.plan.choices == {"float32": {}, "float16": {}}
    assert "nothing to exchange" in repr(proof) and "nothing to exchange" in proof._repr_html_()
    with adapt(model, proof.plan) as adapted:
        ladder = climb(model, copy.deepcopy(model), run)
    port = Port(census(model, (x,)), missing(run, model), proof, adapted, ladder)
    files = port.save(tmp_path)
    assert {"report.md", "plan.json", "census.json", "ladder.png", "operators.md", "operators.png"} <= set(
        files
    )
    assert Plan.load(tmp_path / "plan.json").choices == proof.plan.choices
    assert dict(port.lines())["exchanged"] == "nothing"
    assert "nothing to exchange" in (tmp_path / "report.md").read_text()


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="unknown dtype"):
        prove_module(nn.Linear(2, 2), lambda m: m(torch.ones(1, 2)), "cpu", ["fp8"])


def test_the_ladder_of_a_model_with_a_cache_of_its_own(model, given):
    """All decoder layers share one cache, which the run fills: each must get it in its state at that call."""
    assert climb(model, copy.deepcopy(model), given).ok
    wrong = copy.deepcopy(model)
    name = next(name for name, _ in wrong.named_modules() if name.endswith("layers.1.mlp.down_proj"))
    wrong.get_submodule(name).weight.data[0] *= 2
    first = climb(model, wrong, given).first
    assert first.module == name


def test_a_kept_cache_is_a_copy_and_moves():
    class Cache:
        def __init__(self):
            self.keys, self.dtype, self.device = [torch.ones(2)], torch.float32, torch.device("cpu")

    cache = Cache()
    seen = keep({"cache": cache})["cache"]
    cache.keys.append(torch.zeros(2))
    assert len(seen.keys) == 1
    moved = move_to(seen, "meta", torch.float16)
    assert moved.keys[0].is_meta and moved.keys[0].dtype == torch.float16
    assert (moved.dtype, moved.device.type) == (torch.float16, "meta")
    assert seen.keys[0].device.type == "cpu", "the one that was kept stays where it was"


def test_missing_on_a_device_that_has_everything(model, given):
    assert missing(lambda m: m(**given), model) == {}
    stops = missing(lambda m: 1 / torch.zeros(2, 3) @ torch.zeros(2), model)
    assert len(stops) == 1 and "size" in next(iter(stops))


def test_the_report(model, given, proof, tmp_path):
    with adapt(model, proof.plan) as adapted:
        ladder = climb(model, copy.deepcopy(model), given)
    port = Port(census(model, given), {"aten::convolution": 1}, proof, adapted, ladder)
    assert dict(port.lines())["census"].endswith("launches, 3 syncs; cpu in float32")
    files = port.save(tmp_path)
    assert {"report.md", "plan.json", "census.json", "ladder.png", "operators.md"} <= set(files)
    assert Plan.load(tmp_path / "plan.json").fingerprint == proof.plan.fingerprint
    assert json.loads((tmp_path / "census.json").read_text())["operators"]
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Port of Llava") and "no divergence" in text
    assert "aten::convolution ×1" in repr(port) and "<table>" in port._repr_html_()


def test_the_first_line_counts_the_port_or_says_that_it_does_not(model, given, proof):
    ported = copy.deepcopy(model).to(torch.bfloat16)
    with adapt(ported, {"conv2d": "im2row"}) as adapted:
        own = census(ported, {n: t.bfloat16() if t.is_floating_point() else t for n, t in given.items()})
        ladder = climb(
            model, ported, lambda m: m(**{**given, "pixel_values": given["pixel_values"].to(m.dtype)})
        )
    first = dict(Port(own, {}, proof, adapted, ladder).lines())["census"]
    assert first == f"≈ {own.work()}; cpu in bfloat16"
    assert own.launches() > census(model, given).launches(), "the substitute is in it"
    other = dict(Port(census(model, given), {}, proof, adapted, ladder).lines())["census"]
    assert other.endswith("cpu in float32, not of the port: make the census of the ported module")


class NoParameters(nn.Module):
    def forward(self, x):
        return x * 2


def test_a_module_without_parameters_has_a_census_a_proof_and_a_report(tmp_path):
    model, x = NoParameters(), torch.ones(1, 2)
    run = lambda m: m(x)  # noqa: E731
    proof = prove_module(model, run, "cpu", ["fp32"], repeats=1)
    with adapt(model, proof.plan) as adapted:
        ladder = climb(model, NoParameters(), run)
    Port(census(model, x), missing(run, model), proof, adapted, ladder).save(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_listed_and_not_called_proved():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.body = torch.jit.trace(nn.Conv2d(4, 4, 1), torch.ones(1, 4, 2, 2))

        def forward(self, x):
            return self.body(self.stem(x))

    x = torch.ones(1, 3, 2, 2)
    for model, listed in ((Net().eval(), "body"), (torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 1))), "")):
        proof = prove_module(model, lambda m: m(x), "cpu", ["fp32"], repeats=1, hard=False)
        assert len(proof.notes) >= 1 and "cannot be exchanged and are not proved" in " ".join(proof.notes)
        assert "TorchScript" in " ".join(proof.notes) and "TorchScript" in repr(proof)
        with adapt(model, {"conv2d": "im2row"}) as adapted:
            model(x)
        assert "TorchScript" in adapted.left[listed] and listed not in adapted.exchanged
        assert census(model, x).launches() >= 1
