"""One definition of launch, copy and wait: every counter gives the same numbers on every device.

The simulated NPU is compared in tests/simulator/test_opcount.py.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn as nn

from deskocr_kit.benchmark.counts import count
from deskocr_kit.device.counting import counted
from deskocr_kit.opcount.recorder import Recorder
from deskocr_kit.operator_census.any_module import census
from deskocr_kit.operator_census.ocr_model import census_ocr, page_inputs
from model import DeepseekOCRForCausalLM
from tests.helpers.golden import CHECKPOINT
from tests.helpers.operator_recipes import NEEDS_VALUES, RECIPES
from tests.helpers.paths import NANO

CPU = torch.device("cpu")


def launches(recorder: Recorder) -> Counter:
    found: Counter = Counter()
    for call, n in recorder.counts.items():
        if call.kind == "launch":
            found[call.operator.removeprefix("aten::")] += n
    return found


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_call_gives_the_same_operators_on_the_cpu(name, mode):
    recipe = RECIPES[name]
    with mode():
        run = recipe.call("cpu")
        with Recorder() as recorder:
            run()
        with counted(CPU) as counts:
            recipe.call("cpu")
        before = counts.launches  # the operators that make its tensors
        with counted(CPU) as counts:
            recipe.call("cpu")()
    assert launches(recorder) == recipe.operators
    assert sum(n for call, n in recorder.counts.items() if call.waits) == counts.syncs == recipe.waits
    assert counts.launches - before == sum(recipe.operators.values())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in NEEDS_VALUES])
def test_a_call_gives_the_same_operators_dry(name):
    recipe = RECIPES[name]
    with torch.no_grad():
        run = recipe.call("meta")
        with Recorder() as recorder:
            run()
    assert launches(recorder) == recipe.operators
    assert sum(n for call, n in recorder.counts.items() if call.waits) == recipe.waits


def test_where_a_gradient_is_wanted_composites_are_taken_apart_and_it_is_right():
    """As on an NPU, simulated or real: the backward formulas are those of the parts."""
    x = torch.ones(2, 3, requires_grad=True)
    with Recorder() as recorder:
        (x @ torch.ones(3, 2)).softmax(-1).pow(2).sum().backward()
    assert x.grad is not None and "mm" in launches(recorder) and "_softmax" in launches(recorder)


def test_counting_leaves_nothing_behind():
    x = torch.ones(2, 2, 2)
    with counted(CPU), Recorder():
        x @ x
    packet = torch._C._dispatch_has_kernel_for_dispatch_key
    assert not packet("aten::matmul", "AutogradCPU")
    with counted(CPU) as counts:
        x @ x
    assert counts.launches == 1


# ---------------------------------------------------------------------- our network
@pytest.fixture(scope="module", params=[NANO, CHECKPOINT], ids=["nano", "golden"])
def subject(request):
    """(model, inputs of a page, {run: function}); the position tables of its size exist already."""
    model = DeepseekOCRForCausalLM.from_pretrained(request.param)
    inputs = page_inputs(model.config, "tiny", (1, 1))
    embedding = {name: value for name, value in inputs.items() if name != "attention_mask"}

    def generate(n):
        return lambda: model.generate(**inputs, max_new_tokens=n, eos_token_id=None)

    generate(1)()
    return model, inputs, {"vision": lambda: model.embed(**embedding), "one": generate(1), "two": generate(2)}


def test_recorder_and_counted_see_the_same(subject):
    model, _, runs = subject
    for run in runs.values():
        with torch.no_grad(), Recorder(model) as recorder:
            run()
        with torch.no_grad(), counted(CPU) as counts:
            run()
        seen = recorder.counts.items()
        assert counts.launches == sum(launches(recorder).values())
        assert counts.syncs == sum(n for call, n in seen if call.waits)
        assert counts.h2d_bytes == sum(n * call.h2d_bytes for call, n in seen) == 0
        assert counts.d2h_bytes == sum(n * call.d2h_bytes for call, n in seen)


def test_census_benchmark_and_counted_agree_on_every_phase(subject):
    """The census gets each token, and on a CPU the loop checks each token anyway."""
    model, inputs, _ = subject
    found = census_ocr(model, inputs=inputs, plan=dict(vars(model.slots)))
    made = count(model, inputs, 10)
    names = {"vision": "vision", "prefill": "prefill", "decode": "token"}
    got = {phase: (found.launches(phase), found.syncs(phase)) for phase in names}
    bench = {
        phase: (made["phases"][key]["launches"], made["phases"][key]["syncs"]) for phase, key in names.items()
    }
    assert got["decode"] == bench["decode"]
    # `count` includes the placing of the picture's vectors in vision, the census in prefill. It also includes
    # the end of `generate`, where the host joins the ids: one launch on a CPU.
    for i, more in ((0, 1), (1, 0)):
        ours, theirs = got["vision"][i] + got["prefill"][i], bench["vision"][i] + bench["prefill"][i]
        assert ours + more == theirs


def test_the_cpus_own_work_is_the_devices_and_the_hosts():
    """Work that an accelerator would leave to its host: on a CPU there is only the host, so it counts."""

    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, mask):
            at = mask.to(torch.int32).cumsum(0)  # two operators on the host
            return self.weight + at.to(self.weight.device)

    mask = torch.ones(3, dtype=torch.bool)
    with torch.device("meta"):
        dry = census(Places(), mask)
    real = census(Places(), mask)
    host = [e for e in dry.entries if e.call.kind == "host"]
    assert dry.operators() == {"aten::_to_copy": 1, "aten::add.Tensor": 1}
    assert sum(e.call.h2d_bytes for e in dry.entries) == 3 * 8
    assert dry.launches() == 1 and real.launches() == 1 + len(host) == 3
