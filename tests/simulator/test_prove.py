"""`deskocr prove` on the simulated NPU: blocked operators are named; with the plan the model runs."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.nano_training.recipe import nano_config
from deskocr_kit.operators.plan import auto
from deskocr_kit.operators.prove.proof import prove
from deskocr_kit.operators.prove.runner import CANNOT, PASS
from model import DeepseekOCRForCausalLM

SLOTS = ["conv2d", "place_images", "masked_scatter_"]


@pytest.fixture(scope="module")
def report():
    return prove("npu-sim:as-believed", ["fp16"], "nano", SLOTS, repeats=1, config=nano_config())


def test_blocked_operators_are_a_verdict_not_a_crash(report):
    verdicts = {(slot, name): each for (slot, name, _), each in report.verdicts().items()}
    for slot, operator in (("conv2d", "aten::convolution"), ("masked_scatter_", "aten::masked_scatter_")):
        verdict, why = verdicts[slot, "reference"]
        assert verdict == CANNOT and operator in why
    for name in ("unfold_einsum", "patchify", "pointwise", "im2row"):
        assert verdicts["conv2d", name][0] == PASS
    assert not report.faults()


def test_no_time_is_shown_as_an_npus(report):
    assert "simulated, times are not those of an NPU" in repr(report)
    assert "ms" not in report.columns() and "ratio" not in report.columns()
    text = report.to_markdown()
    assert "Times are left out" in text and "aten::convolution" in text


def test_the_plan_makes_the_model_run_there(report, tmp_path):
    path = report.plan.save(tmp_path / "plan.json")
    model = DeepseekOCRForCausalLM.random(nano_config(), torch.float16, "npu:0")
    pixels, ids = torch.randn(1, 3, 64, 64), torch.randint(3, 90, (1, 7))
    mask = torch.zeros(1, 7, dtype=torch.bool)
    mask[0, 1:4] = True

    def call():
        with torch.no_grad():
            return model(ids, [(pixels[:0], pixels)], mask, [[1, 1]]).logits.cpu()

    want = call()  # the profile "all" lacks nothing
    with simulator.using("as-believed"):
        with pytest.raises(NotImplementedError, match="aten::convolution"):
            call()
        plan = auto(model, path)
        assert set(plan) == {"conv2d", "place_images"}
        model.use_plan(plan)
        with simulator.record() as seen:
            ours = call()
    assert seen.refused == seen.fallbacks == 0
    assert (ours - want).norm() / want.norm() < 5e-3
    assert auto(model, path) == {}  # another profile: the plan is not valid there
