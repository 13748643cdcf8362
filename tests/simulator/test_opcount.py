"""One definition: the simulator, the recorder, `counted` and a dry census give the same numbers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.benchmark.counts import KEYS, TOKENS, count
from deskocr_kit.device.counting import counted
from deskocr_kit.opcount.recorder import Recorder
from deskocr_kit.operator_census.any_module import census
from deskocr_kit.operator_census.ocr_model import census_ocr, page_inputs
from model import DeepseekOCRForCausalLM
from tests.helpers.golden import CHECKPOINT
from tests.helpers.operator_recipes import RECIPES
from tests.helpers.paths import NANO

NPU = torch.device("npu:0")


def of_recorder(recorder: Recorder, kind: str = "launch") -> Counter:
    found: Counter = Counter()
    for call, n in recorder.counts.items():
        if call.kind == kind:
            found[call.operator] += n
    return found


def figures(counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in ("launches", "syncs", "h2d_bytes", "d2h_bytes")}


def figures_of_recorder(recorder: Recorder) -> dict[str, int]:
    calls = recorder.counts.items()
    return {
        "launches": of_recorder(recorder).total(),
        "syncs": sum(n for call, n in calls if call.waits),
        "h2d_bytes": sum(n * call.h2d_bytes for call, n in calls),
        "d2h_bytes": sum(n * call.d2h_bytes for call, n in calls),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_call_gives_the_same_operators_as_elsewhere(name):
    """tests/opcount/test_definition.py requires the same of a CPU and of a dry run."""
    recipe, expected = RECIPES[name], {f"aten::{each}": n for each, n in RECIPES[name].operators.items()}
    with torch.no_grad():
        run = recipe.call("npu:0")
        with simulator.record() as alone:
            run()
        run = recipe.call("npu:0")  # in-place changes start again
        with Recorder(torch.nn.Linear(1, 1).to(NPU)) as recorder, simulator.record() as both:
            run()
    assert alone.by_operator() == both.by_operator() == of_recorder(recorder) == expected
    assert alone.syncs == both.syncs == recipe.waits
    assert figures_of_recorder(recorder) == figures(both)


# ---------------------------------------------------------------------- our network
SUBJECTS = [(NANO, torch.float32), (NANO, torch.float16), (CHECKPOINT, torch.float32)]


@pytest.fixture(scope="module", params=SUBJECTS, ids=["nano fp32", "nano fp16", "golden fp32"])
def make(request):
    folder, dtype = request.param
    return lambda: DeepseekOCRForCausalLM.from_pretrained(folder, dtype=dtype, device=NPU)


@pytest.fixture(scope="module")
def model(make):
    return make()


@pytest.fixture(scope="module")
def inputs(model):
    return page_inputs(model.config, "tiny", (1, 1))


@pytest.mark.parametrize("what", ["vision", "prefill", "decode"])
def test_operator_by_operator(model, inputs, what):
    embedding = {name: value for name, value in inputs.items() if name != "attention_mask"}

    def run():
        if what == "vision":
            return model.embed(**embedding)
        return model.generate(**inputs, max_new_tokens={"prefill": 1, "decode": 20}[what], eos_token_id=None)

    with torch.no_grad():
        run()  # these tables are made once
        with simulator.record() as alone:
            run()
        with Recorder(model) as recorder, simulator.record() as both:
            run()
        with counted(NPU) as counts:
            run()
    assert alone.by_operator() == both.by_operator() == of_recorder(recorder)
    assert figures(alone) == figures(both) == figures(counts) == figures_of_recorder(recorder)


def test_a_dry_census_counts_what_a_run_does(make, inputs):
    """Operator by operator, with waits, bytes, and the position tables that a new model must make."""
    model = make()
    plan = dict(vars(model.slots))
    real = census_ocr(model, plan=plan, inputs=inputs)
    dry = census_ocr(model.config, plan=plan, inputs=inputs, dtype=model.dtype)
    for phase in ("vision", "decode"):
        assert real.operators(phase) == dry.operators(phase)
        assert real.work(phase) == dry.work(phase)
        assert real.traffic(phase) == dry.traffic(phase)


def test_in_the_prompt_a_dry_census_takes_every_expert_for_hit(model, inputs):
    """An expert may get no token in a run: the difference is what only that expert would have launched."""
    plan = dict(vars(model.slots))
    real = census_ocr(model, plan=plan, inputs=inputs)
    dry = census_ocr(model.config, plan=plan, inputs=inputs, dtype=model.dtype)
    more = Counter(dry.operators("prefill"))
    more.subtract(real.operators("prefill"))
    assert min(more.values()) >= 0
    assert real.syncs("prefill") == dry.syncs("prefill")
    assert real.traffic("prefill") == dry.traffic("prefill")
    assert {name for name, n in more.items() if n} <= {"aten::matmul", "aten::silu", "aten::mul.Tensor"}


def test_the_benchmark_counts_a_token_as_the_simulator_does(model, inputs):
    made = count(model, inputs, 10)
    seen = {}
    for n in (1, 1 + TOKENS):
        with simulator.record() as seen[n]:
            model.generate(**inputs, max_new_tokens=n, eos_token_id=None)
    for key in KEYS:
        expected = (getattr(seen[1 + TOKENS], key) - getattr(seen[1], key)) / TOKENS
        assert made["phases"]["token"][key] == expected
    assert sum(made["operators_per_token"].values()) == made["phases"]["token"]["launches"]


FALLING = {
    "repeat_interleave": lambda x: torch.repeat_interleave(x.long()),
    "a size that only the device knows": lambda x: x[x > 1].sum(),
    "its own output": lambda x: torch.repeat_interleave(x.long(), 0).cumsum(0),
}


@pytest.mark.parametrize("name", FALLING)
@pytest.mark.parametrize(
    ("version", "profile"), [("2.6.0.post5", "as-published-2.6.0"), ("2.13.0", "as-published")]
)
@pytest.mark.filterwarnings("ignore:CAUTION")
def test_a_census_for_a_wheel_counts_what_the_device_with_that_wheel_does(name, version, profile):
    """Also where an operator falls back to the host: repeat_interleave.Tensor on 2.6.0."""
    x = torch.tensor([1.0, 2.0, 0.0], device=NPU)
    with torch.no_grad():
        found = census(torch.nn.Linear(1, 1).to(NPU), run=lambda: FALLING[name](x), torch_npu=version)
        with simulator.using(profile), simulator.record() as seen:
            FALLING[name](x)
    assert (found.launches(), found.syncs()) == (seen.launches, seen.syncs)
    assert found.traffic() == (seen.h2d_bytes, seen.d2h_bytes)
