"""plan.json: written, read, refused if it does not fit, used by from_pretrained."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from deskocr_kit.operators.digests import kernel_digest, source_digest
from deskocr_kit.operators.plan import VARIABLE, Plan, PlanError, auto, find, fingerprint
from deskocr_kit.operators.substitutes.cases import ByCase
from deskocr_kit.operators.substitutes.registry import candidate
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM, slots
from model.safetensors_io import CheckpointError
from tests.helpers.golden import CHECKPOINT

CHOICES = {
    "float32": {
        "conv2d": {"*": {"use": "im2row"}, "kernel 16x16 stride 16 padding 0": {"use": "patchify"}},
        "place_images": {"*": {"use": "cumsum_where"}},
        "masked_scatter_": {"*": {"use": "cumsum_where"}},
    }
}


@pytest.fixture
def plan(golden_model) -> Plan:
    return Plan(fingerprint("cpu", golden_model.config), CHOICES, {"command": "a test"})


def test_written_and_read(plan, tmp_path):
    path = plan.save(tmp_path / "deep" / "plan.json")
    again = Plan.load(path)
    assert dataclasses.replace(again, path=None) == plan and not list(tmp_path.rglob("*.part"))
    functions = again.functions(torch.float32)
    assert functions["place_images"] is candidate("place_images", "cumsum_where")
    assert isinstance(functions["conv2d"], ByCase)
    x, weight = torch.randn(1, 3, 32, 32), torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(
        functions["conv2d"](x, weight, None, 16, 0),
        slots.conv2d(x, weight, None, 16, 0),
        atol=1e-4,
        rtol=1e-4,
    )
    assert again.functions(torch.float16) == {} and "patchify" in repr(again)


def test_from_pretrained_uses_a_plan_that_fits(plan, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, str(plan.save(tmp_path / "plan.json")))
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32, plan="auto")
    assert model.slots.place_images is candidate("place_images", "cumsum_where")
    assert model.slots.attention is slots.attention  # not in the plan
    assert not hasattr(model.slots, "masked_scatter_")
    assert f"plan: {tmp_path / 'plan.json'}, 2 slots for float32" in capsys.readouterr().err
    by_path = DeepseekOCRForCausalLM.from_pretrained(
        CHECKPOINT, dtype=torch.float32, plan=tmp_path / "plan.json"
    )
    assert isinstance(by_path.slots.conv2d, ByCase)


@pytest.mark.parametrize(
    ("key", "value"),
    [("torch", "2.6.0"), ("cann", "8.5.0"), ("torch_npu", "2.6.0.post5"), ("name", "Ascend910B3"),
     ("device", "npu"), ("substitutes", "0"), ("network", "another"), ("simulated", "True")],
)  # fmt: skip
def test_a_plan_from_elsewhere_is_refused_and_says_why(plan, key, value, tmp_path, capsys, golden_model):
    elsewhere = dataclasses.replace(plan, fingerprint={**plan.fingerprint, key: value})
    path = elsewhere.save(tmp_path / "plan.json")
    assert auto(golden_model, path) == {}
    said = capsys.readouterr().err
    assert "does not fit" in said and f"{value} in the plan" in said and key in said
    assert "deskocr prove --device cpu" in said and "defaults are used" in said


def test_a_plan_for_another_dtype_is_refused(plan, tmp_path, capsys, golden_model):
    other = dataclasses.replace(plan, choices={"float16": CHOICES["float32"]})
    assert auto(golden_model, other.save(tmp_path / "plan.json")) == {}
    assert "float32 here, float16 in the plan" in capsys.readouterr().err


def test_no_plan_at_all(tmp_path, monkeypatch, capsys, golden_model):
    monkeypatch.setattr("deskocr_kit.operators.plan.find", list)
    assert auto(golden_model) == {} and "plan: none found" in capsys.readouterr().err


def test_the_remedy_makes_a_plan_of_this_network(monkeypatch, capsys, golden_model):
    monkeypatch.setattr("deskocr_kit.operators.plan.find", list)
    official = SimpleNamespace(
        device=torch.device("cpu"), dtype=torch.float16, config=DeepseekOCRConfig(), slots=golden_model.slots
    )
    for model, name in ((golden_model, "FOLDER"), (official, "deepseek-ocr")):
        assert auto(model) == {}
        assert f"`deskocr prove --device cpu --checkpoint {name}` makes a plan" in capsys.readouterr().err


def test_where_plans_are_looked_for(plan, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    path = plan.save(tmp_path / "reports" / "cpu-nano" / "plan.json")
    assert find()[0] == path
    monkeypatch.setenv(VARIABLE, "/somewhere/else.json")
    assert [str(each) for each in find()] == ["/somewhere/else.json"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 1}', '{"format": 9, "fingerprint": {}, "choices": {}, "about": {}}',
     '{"format": 1, "fingerprint": {}, "choices": {"float32": {"conv2d": "patchify"}}, "about": {}}'],
)  # fmt: skip
def test_damaged_plans_are_named(text, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.load(path)
    with pytest.raises(PlanError, match="No such file"):
        Plan.load(tmp_path / "absent.json")


@pytest.mark.parametrize("cases", [{"*": {"use": "magic"}}, {"kernel 1x1": {"use": "im2row"}}])
def test_plans_that_name_what_is_not_there(plan, cases, tmp_path):
    path = dataclasses.replace(plan, choices={"float32": {"conv2d": cases}}).save(tmp_path / "plan.json")
    with pytest.raises(PlanError, match=r"plan\.json"):
        Plan.load(path).functions(torch.float32)


def test_the_model_finds_the_provider_by_itself_and_does_not_import_the_kit():
    code = (
        "import sys, model.plans as p, model.modeling_deepseekocr\n"
        "assert 'deskocr_kit' not in sys.modules\n"
        "p.GROUP = 'no.such.group'\n"
        "try: p.resolve('auto', None)\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no plan provider is registered" in done.stdout, done.stderr


def test_json_is_readable(plan, tmp_path):
    stored = json.loads(plan.save(tmp_path / "plan.json").read_text())
    assert stored["format"] == 1 and set(stored) == {"format", "about", "fingerprint", "choices"}


# ---------------------------------------------------------------------- what may go wrong with a file
ANYWHERE = {"float32": {"place_images": {"*": {"use": "cumsum_where"}}}}


def stored(plan, **changed) -> str:
    fresh = {"format": 1, "fingerprint": plan.fingerprint, "choices": ANYWHERE, "about": {}}
    return json.dumps({**fresh, **changed})


def broken_plans(plan) -> dict[str, bytes]:
    slot = {"float32": {"conv3d": {"*": {"use": "im2row"}}}}
    name = {"float32": {"conv2d": {"*": {"use": "of_tomorrow"}}}}
    return {
        "empty": b"", "cut off": stored(plan).encode()[:-9], "not text": b"\xff\xfe\x00{", "a list": b"[1]",
        "a number": b"3", "deep": b"[" * 100_000, "null": b"null",
        "of tomorrow": stored(plan, format=2).encode(), "of text": stored(plan, format="1").encode(),
        "no fingerprint": json.dumps({"format": 1, "choices": {}, "about": {}}).encode(),
        "a fingerprint of numbers": stored(plan, fingerprint={**plan.fingerprint, "torch": 2}).encode(),
        "choices of lists": stored(plan, choices={"float32": ["conv2d"]}).encode(),
        "a choice of a list": stored(plan, choices={"float32": {"conv2d": {"*": {"use": ["x"]}}}}).encode(),
        "no use": stored(plan, choices={"float32": {"conv2d": {"*": {}}}}).encode(),
        "an unknown slot": stored(plan, choices=slot).encode(),
        "an unknown candidate": stored(plan, choices=name).encode(),
    }  # fmt: skip


def test_a_broken_plan_is_named_and_never_stops_auto(plan, tmp_path, monkeypatch, capsys, golden_model):
    """The next file is tried; a file named by its path raises instead."""
    good = tmp_path / "good" / "plan.json"
    plan.save(good)
    for what, content in broken_plans(plan).items():
        bad = tmp_path / "bad" / "plan.json"
        bad.parent.mkdir(exist_ok=True)
        bad.write_bytes(content)
        monkeypatch.setattr("deskocr_kit.operators.plan.find", lambda bad=bad: [bad, good])
        assert "place_images" in auto(golden_model), what
        said = capsys.readouterr().err
        assert f"plan: ignored: {bad}" in said and f"plan: {good}" in said, (what, said)
        with pytest.raises(PlanError, match=r"bad/plan\.json"):
            auto(golden_model, bad)
    monkeypatch.setattr("deskocr_kit.operators.plan.find", lambda: [bad])
    assert auto(golden_model) == {}
    assert "defaults are used" in capsys.readouterr().err


def test_a_plan_that_is_named_but_absent(tmp_path, monkeypatch, capsys, golden_model):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.json"))
    assert auto(golden_model) == {}
    said = capsys.readouterr().err
    assert "absent.json: No such file" in said and "deskocr prove --device cpu" in said
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert auto(golden_model) == {} and "a folder, not a regular file" in capsys.readouterr().err
    with pytest.raises(PlanError, match="No such file"):
        DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, plan=tmp_path / "absent.json")


def test_changed_code_is_another_plan(plan, tmp_path, monkeypatch, capsys, golden_model):
    path = plan.save(tmp_path / "plan.json")
    monkeypatch.setattr("deskocr_kit.operators.plan.code_digest", lambda: "0123456789ab")
    assert auto(golden_model, path) == {}
    assert "substitutes: 0123456789ab here" in capsys.readouterr().err


def test_of_several_the_nearest_is_told(plan, tmp_path, monkeypatch, capsys, golden_model):
    far = dataclasses.replace(plan, fingerprint=dict.fromkeys(plan.fingerprint, "x")).save(
        tmp_path / "far.json"
    )
    near = dataclasses.replace(plan, fingerprint={**plan.fingerprint, "torch": "2.6.0"}).save(
        tmp_path / "near.json"
    )
    monkeypatch.setattr("deskocr_kit.operators.plan.find", lambda: [far, near])
    assert auto(golden_model) == {}
    said = capsys.readouterr().err
    assert "near.json does not fit" in said and "far.json" not in said
    assert f"torch: {torch.__version__} here, 2.6.0 in the plan" in said


def test_a_checkpoint_that_is_not_there_is_named_before_anything_is_proved(tmp_path):
    from deskocr_kit.operators.prove.proof import config_of

    with pytest.raises(CheckpointError, match="nothing: no such folder.*model/README.md"):
        config_of(str(tmp_path / "nothing"))


def test_the_digest_is_of_code_and_not_of_words():
    """Stored plans stay valid after changes of comments, docstrings, line breaks and module names."""
    before = source_digest(["from .a import b\n\n\ndef f(x):\n    return b(x, 1)\n"])
    same = '"""Words."""\nfrom ..other.a import b  # why\n\ndef f(x):\n    "More."\n    return b(\n x, 1)\n'
    assert source_digest([same]) == before
    for other in (same.replace("1)", "2)"), same.replace("import b", "import c"), same + "g = f\n"):
        assert source_digest([other]) != before
    assert source_digest([same, ""]) != before


def test_compiled_kernels_count_where_they_are_candidates(plan, monkeypatch, golden_model):
    """A plan whose times are those of other kernels, or of none, is not for this device."""
    from deskocr_kit.operators import plan as module

    assert "kernels" not in plan.fingerprint  # a CPU compiles none
    monkeypatch.setattr(module, "why_not", lambda device: None)
    here = fingerprint("cpu", golden_model.config)
    assert here["kernels"] == kernel_digest()
    assert plan.differences(here) == [f"kernels: {kernel_digest()} here, None in the plan"]
    monkeypatch.setattr(module, "interpreted", lambda: True)  # proved, and never planned
    assert fingerprint("cpu", golden_model.config) == plan.fingerprint
