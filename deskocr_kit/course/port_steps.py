"""The steps of notebook 09 for one model, in one call.

steps = port_steps(model, inputs, "npu-sim:as-believed", "fp16")
print(steps)                     # step by step: what was found, or what went wrong
steps.ok, steps.failed, steps.port
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from ..compare.ladder import Ladder, climb
from ..device.dtypes import DTYPES, dtype_name
from ..device.tolerances import relative_error, tolerance
from ..display.table import text_table
from ..operator_census.any_module import census
from ..operator_census.result import Census
from ..operators.adapt.module import Adapted, adapt
from ..operators.prove.proof import prove_module
from ..operators.prove.verdict_table import Report
from ..porting.generated import Generated, compare_generated
from ..porting.inputs import make_run
from ..porting.move import Moved, port_module
from .port_report import Port, missing

#: The steps, in order, and when each is done.
STEPS = {
    "move": "on the device, in the dtype; what must stay in fp32 does",
    "census": "the operators of the model are counted",
    "missing": "the operators that the device refuses are listed",
    "prove": "no substitute that runs is wrong",
    "adapt": "the ported model runs, and its output is near the reference's",
    "undo": "the same operators are refused again",
    "ladder": "no block diverges",
    "fault": "a damaged layer is named",
    "generate": "the text is the reference's, or near ties explain the difference",
    "report": "the report is written",
}


#: {step: (the result that it needs, the step that makes it)}.
NEEDS = {
    "undo": ("lacking", "missing"), "adapt": ("proof", "prove"), "ladder": ("proof", "prove"),
    "fault": ("proof", "prove"), "generate": ("proof", "prove"), "report": ("climbed", "ladder"),
}  # fmt: skip

T = TypeVar("T")


@dataclass
class Steps:
    """{step: (whether it passes, what was found)}; a step that does not apply is absent."""

    name: str
    results: dict[str, tuple[bool, str]] = field(default_factory=dict)
    port: Port | None = None

    @property
    def failed(self) -> list[str]:
        return [step for step, (passes, _) in self.results.items() if not passes]

    @property
    def ok(self) -> bool:
        return not self.failed

    def __repr__(self) -> str:
        rows = [[step, "pass" if passes else "FAIL", what] for step, (passes, what) in self.results.items()]
        return f"{self.name}\n{text_table(('step', 'verdict', 'what'), rows)}"

    def take(self, step: str, function: Callable[[], tuple[bool, str]]) -> bool:
        """Run a step. An exception is a failure, and its first line the reason."""
        try:
            self.results[step] = function()
        except Exception as error:
            self.results[step] = (False, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        return self.results[step][0]


def port_steps(
    model: nn.Module,
    inputs,
    device: torch.device | str,
    dtype: torch.dtype | str = "fp16",
    output=None,
    generate: int = 8,
    hard: bool = True,
) -> Steps:
    """Port `model` as notebook 09 does, and report each step.

    Args:
        model: any nn.Module, in fp32 on the CPU. It does not change.
        inputs, output: as for make_run.
        device, dtype: as for port_module.
        generate: number of tokens to generate and compare; 0, or a model without `generate`: no such step.
        hard: as for prove_module.

    A step that raises is a failed step, and later steps that need its result are not taken. A model with
    random numbers in its forward fails at "census": nothing could be compared.
    """
    way = _Way(model, inputs, make_run(inputs, output), device, dtype, generate, hard)
    steps = Steps(type(model).__name__)
    for step in STEPS:
        if step == "generate" and not (generate and callable(getattr(model, "generate", None))):
            continue
        needed, maker = NEEDS.get(step, ("inputs", ""))
        if getattr(way, needed) is None:
            steps.results[step] = (False, f"not taken: it needs the step {maker}")
        elif not steps.take(step, getattr(way, step)) and step == "move":
            break
    steps.port = way.port
    return steps


def _have(result: T | None) -> T:
    """The result of an earlier step."""
    assert result is not None, "an earlier step failed"
    return result


@dataclass
class _Way:
    """The steps of one model. Each returns (whether it passes, what was found), and uses earlier ones."""

    model: nn.Module
    inputs: Any
    run: Callable[[nn.Module], Tensor]
    device: torch.device | str
    asked: torch.dtype | str
    tokens: int
    hard: bool
    moved: Moved | None = None
    lacking: dict[str, int] | None = None
    proof: Report | None = None
    adapted: Adapted | None = None
    own: Census | None = None
    climbed: Ladder | None = None
    generated: Generated | None = None
    port: Port | None = None

    def move(self) -> tuple[bool, str]:
        self.moved = moved = port_module(self.model, self.device, self.asked)
        self.ported, self.dtype = moved.module, moved.dtype
        kept = f", {len(moved.kept)} tensors in fp32" if moved.kept else ""
        left = f", {len(moved.left_behind)} plain attributes" if moved.left_behind else ""
        return True, f"{moved.device} in {dtype_name(moved.dtype)}{kept}{left}"

    def census(self) -> tuple[bool, str]:
        found = census(self.model, run=lambda: self.run(self.model))
        with torch.no_grad():
            same = torch.equal(self.run(self.model), self.run(self.model))
        random = "; two runs differ: call .eval(), or let output= choose what is not random"
        return found.launches() > 0 and same, found.work() + random * (not same)

    def missing(self) -> tuple[bool, str]:
        self.lacking = missing(self.run, self.ported)
        return True, ", ".join(f"{name} ×{n}" for name, n in self.lacking.items()) or "nothing"

    def prove(self) -> tuple[bool, str]:
        short = next(short for short, name in DTYPES.items() if name == dtype_name(self.dtype))
        self.proof = proof = prove_module(
            self.model, self.run, _have(self.moved).device, [short], repeats=1, hard=self.hard
        )
        return not proof.faults(), "; ".join([*proof.faults(), *proof.notes]) or proof.summary()

    def adapt(self) -> tuple[bool, str]:
        with adapt(self.ported, _have(self.proof).plan) as self.adapted, torch.no_grad():
            ours, expected = self.run(self.ported), self.run(self.model)
            self.own = census(self.ported, run=lambda: self.run(self.ported))
        error, allowed = relative_error(ours, expected), tolerance(self.dtype).network
        passes = bool(ours.isfinite().all()) and error <= allowed
        return passes, f"{len(self.adapted.exchanged)} exchanged, relative error {error:.1e} of {allowed:.0e}"

    def undo(self) -> tuple[bool, str]:
        again = missing(self.run, self.ported)
        return again == self.lacking, "as before" if again == self.lacking else f"now {again}"

    def ladder(self) -> tuple[bool, str]:
        with adapt(self.ported, _have(self.proof).plan):
            self.climbed = found = climb(self.model, self.ported, self.run)
        return found.ok, str(found.first or f"{len(found.rungs)} blocks")

    def fault(self) -> tuple[bool, str]:
        suspect, faulty = suspect_of(self.model, self.run), copy.deepcopy(self.ported)
        with torch.no_grad():
            damaged: Any = faulty.get_submodule(suspect)
            damaged.weight.mul_(1.5).add_(0.25)  # some norms multiply by 1 + weight
        with adapt(faulty, _have(self.proof).plan):
            first = climb(self.model, faulty, self.run).first
        named = first.module if first is not None else "nothing"
        return named == suspect, suspect if named == suspect else f"{suspect} is damaged, {named} is named"

    def generate(self) -> tuple[bool, str]:
        with adapt(self.ported, _have(self.proof).plan):
            self.generated = found = compare_generated(self.model, self.ported, self.inputs, self.tokens)
        return found.ok, str(found).splitlines()[0]

    def report(self) -> tuple[bool, str]:
        own, lacking, proof = _have(self.own), _have(self.lacking), _have(self.proof)
        port = Port(own, lacking, proof, _have(self.adapted), _have(self.climbed), self.generated)
        with tempfile.TemporaryDirectory() as folder:
            written = port.save(folder)
        self.port = port
        return {"report.md", "plan.json", "census.json"} <= set(written), f"{len(written)} files"


def suspect_of(model: nn.Module, run: Callable[[nn.Module], object]) -> str:
    """The path of a layer with a weight that the run calls: the last norm, else the last layer.

    Raises ValueError for a model that calls no such layer.
    """
    called: list[str] = []
    layers = {path: layer for path, layer in model.named_modules() if path and hasattr(layer, "weight")}
    handles = [
        layer.register_forward_hook(lambda *_, path=path: called.append(path))
        for path, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            run(model)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        raise ValueError(f"{type(model).__name__} calls no layer with a weight")
    norms = [path for path in called if "norm" in type(layers[path]).__name__.lower()]
    return (norms or called)[-1]
