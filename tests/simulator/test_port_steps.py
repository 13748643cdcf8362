"""Notebook 09's steps for 24 models that are not ours, as they come. docs/porting.md shows the table."""

from __future__ import annotations

import pytest
import torch
import torch.nn as nn

from deskocr_kit import Port, adapt, census, counted, missing, port_module, port_steps, simulator
from tests.helpers.guest_models import models

MODELS = models()
NPU = torch.device("npu:0")
QUICK = ("DeepSeek-V2 (experts)", "Whisper", "reader with a GRU cell")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_there_are_24():
    assert len(MODELS) == 24


def passes(name: str, profile: str = "as-believed", dtype: str = "fp16"):
    each = MODELS[name]
    if not each.here:
        pytest.skip(f"this version of transformers has no {each.needs or 'config of this form'}")
    with simulator.using(profile):
        steps = port_steps(each.build(), each.given(), NPU, dtype, generate=6, hard=False)
    assert steps.ok, steps
    assert ("generate" in steps.results) == each.generates and steps.port is not None
    return steps


@pytest.mark.parametrize("name", QUICK)
def test_the_steps_of_a_few_models(name):
    steps = passes(name)
    assert isinstance(steps.port, Port) and "npu:0 in float16" in dict(steps.port.lines())["census"]


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("profile", ["as-believed", "as-published"])
@pytest.mark.parametrize("name", MODELS)
def test_the_steps_of_every_model(name, profile, dtype):
    passes(name, profile, dtype)


def test_the_census_of_the_port_counts_what_the_device_does():
    """The report's first line: the operators of the adapted port, not those of the fp32 model on the CPU."""
    each = MODELS["reader with a GRU cell"]
    with simulator.using("as-believed"):
        steps = port_steps(each.build(), each.given(), NPU, "fp16", hard=False)
        port = steps.port
        ported = port.adapted.module
        with adapt(ported, port.proof.plan), torch.no_grad(), counted(NPU) as counts:
            ported(each.given().to(NPU, torch.float16))
    assert (port.census.launches(), port.census.syncs()) == (counts.launches, counts.syncs)
    assert dict(port.lines())["census"] == f"≈ {port.census.work()}; npu:0 in float16"
    assert port.census.launches() != census(each.build(), each.given()).launches()


def test_a_failed_step_says_why_and_the_others_go_on():
    class Broken(nn.Linear):
        def forward(self, x):
            if x.device.type == "npu":
                raise RuntimeError("not on this device\nmore")
            return super().forward(x)

    with simulator.using("as-believed"):
        steps = port_steps(Broken(2, 2), torch.ones(1, 2), NPU, "fp16")
    assert "adapt" in steps.failed and "RuntimeError: not on this device" in repr(steps)
    assert steps.results["census"][0] and not steps.ok


def test_a_random_model_is_told_and_no_step_raises_an_attribute_error():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))  # in train mode
    with simulator.using("as-believed"):
        steps = port_steps(model, torch.ones(1, 4), NPU, "fp16")
        assert "census" in steps.failed and "two runs differ: call .eval()" in repr(steps)
        broken = port_steps(nn.Linear(3, 4), torch.ones(1, 4), NPU, "fp16")
    assert "shapes cannot be multiplied" in broken.results["prove"][1]
    assert broken.results["adapt"][1] == broken.results["ladder"][1] == "not taken: it needs the step prove"


def test_tensors_left_on_the_host_are_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.line, self.scale = nn.Linear(2, 2), torch.ones(2)

        def forward(self, x):
            return self.line(x) * self.scale

    model, x = Scaled(), torch.ones(1, 2)
    with pytest.raises(RuntimeError, match="two devices.*Left behind: scale. .*register_buffer"):
        missing(lambda m: m(x.to(NPU)), model.to(NPU))
    moved = port_module(Scaled(), NPU, "fp16")
    assert moved.left_behind == ["scale"] and missing(lambda m: m(x.to(NPU, torch.half)), moved.module) == {}
