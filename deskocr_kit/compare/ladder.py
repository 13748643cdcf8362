"""The ladder: compare weights, blocks on given inputs, blocks in the run and logits; find the first fault.

    found = climb(reference, candidate, inputs)     # inputs of forward; any two modules of one structure
    print(found)                                    # table and first divergence
    found.first.module, found.first.operator, found.first.token, found.first.what

Isolated: each block of the candidate gets the inputs of the reference, so that only its own error counts.
Cumulative: the error in the candidate's run. If the candidate computes in a lower dtype, a copy of the
reference's block in that dtype on the CPU measures the error of the dtype alone (three-way).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn as nn

from ..device.tolerances import tolerance
from .ladder_figure import draw
from .locate import Divergence, between_blocks, formula_holds, in_slot, inside_block
from .metrics import Closeness, closeness, tensors, worst
from .show import ladder_html, ladder_text
from .trace import Call, blocks_of, keep, move_to, slots_of, traced, where
from .weights import WeightFault, compare_weights

FACTOR = 2.0  # the device may have twice the error of the same dtype on the CPU: another order of sums


@dataclass(frozen=True)
class LayerComparison:
    """One block (or one function outside all blocks), one call of it."""

    name: str
    turn: int
    isolated: Closeness
    cumulative: Closeness | None  # None: the candidate's run did not reach it
    peer: Closeness | None  # the same dtype on the CPU; None if both models use the same dtype
    budget: float

    @property
    def ok(self) -> bool:
        return self.isolated.ok(self.budget)


@dataclass
class Ladder:
    """All comparisons. `first` is None if nothing diverges."""

    weights: list[WeightFault]
    rungs: list[LayerComparison]
    output: Closeness
    first: Divergence | None
    raised: str = ""
    about: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.first is None

    def __repr__(self) -> str:
        return ladder_text(self)

    def _repr_html_(self) -> str:
        return ladder_html(self)

    def chart(self):
        """A matplotlib Figure of the error of every rung. See ladder_figure.py."""
        return draw(self)


Run = Callable[[nn.Module], object]


def runner(inputs) -> Run:
    """A function that calls a model with `inputs`: a dict, a tuple, or one tensor."""
    if callable(inputs):
        return inputs
    if isinstance(inputs, Mapping):
        return lambda model: model(**inputs)
    given = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
    return lambda model: model(*given)


@torch.no_grad()
def climb(
    reference: nn.Module,
    candidate: nn.Module,
    inputs,
    budget: float | None = None,
    blocks: list[str] | None = None,
    three_way: bool = True,
) -> Ladder:
    """Compare `candidate` with `reference` on real activations, rung by rung.

    Args:
        reference: usually fp32 on the CPU.
        candidate: the same structure, in any dtype, on any device.
        inputs: those of forward (dict, tuple, tensor), or a function that runs a model it is given.
        budget: relative error allowed to one block; by dtype if None, see device/tolerances.py.
        blocks: paths of the rungs; trace.blocks_of the reference if None.
        three_way: in a lower dtype, raise the budget to FACTOR times the error of a copy of the reference in
            that dtype.

    A candidate that raises is compared up to that point, and block by block.
    """
    run, names = runner(inputs), blocks or blocks_of(reference)
    weights = compare_weights(reference, candidate)
    with traced(reference, names, "outside") as theirs:
        expected = run(reference)
    raised = ""
    with traced(candidate, names, "outside") as ours:
        try:
            output = run(candidate)
        except Exception as error:
            output, raised = None, f"{type(error).__name__}: {error}"
    arrived = {call.key: call for call in ours}
    judge = _Judge(reference, candidate, budget, three_way)
    rungs = [judge.compare(call, arrived.get(call.key)) for call in theirs]
    outcome = worst(output, expected) if output is not None else Closeness(problem=raised)
    device, dtype = where(candidate, candidate)
    first = _first(judge, run, names, theirs, arrived, rungs, weights, outcome)
    about = f"{type(candidate).__name__} in {str(dtype).removeprefix('torch.')} on {device}"
    return Ladder(weights, rungs, outcome, first, raised, about)


class _Judge:
    """Runs a recorded call on the candidate and measures its error."""

    def __init__(self, reference: nn.Module, candidate: nn.Module, budget: float | None, three_way: bool):
        self.reference, self.candidate = reference, candidate
        self.given, self.three_way = budget, three_way
        self.theirs, self.ours = slots_of(reference), slots_of(candidate)

    def compare(self, call: Call, arrived: Call | None) -> LayerComparison:
        isolated, peer, budget = self.isolated(call)
        cumulative = worst(arrived.output, call.output) if arrived is not None else None
        return LayerComparison(call.name, call.turn, isolated, cumulative, peer, budget)

    def isolated(self, call: Call) -> tuple[Closeness, Closeness | None, float]:
        """Closeness of the candidate, of the same dtype on the CPU, and the budget."""
        mine, original = self.counterparts(call)
        module = self.candidate.get_submodule(call.module)
        device, dtype = where(module, self.candidate)
        budget = self.given or tolerance(dtype).block
        peer, (_, base) = None, where(self.reference, self.reference)
        if self.three_way and dtype != base and not call.slot:
            lowered = copy.deepcopy(original).to("cpu", dtype)
            peer = attempt(lowered, call, torch.device("cpu"), dtype, budget)
            if peer.finite and not peer.problem and self.given is None:
                budget = max(budget, FACTOR * peer.relative)
        return attempt(mine, call, device, dtype, budget), peer, budget

    def counterparts(self, call: Call) -> tuple[Callable, Callable]:
        if call.slot:
            return getattr(self.ours, call.slot), getattr(self.theirs, call.slot)
        return self.candidate.get_submodule(call.module), self.reference.get_submodule(call.module)


def attempt(function: Callable, call: Call, device, dtype, budget: float) -> Closeness:
    """Closeness of `function` on the recorded inputs of a call."""
    args, kwargs = keep(move_to(call.args, device, dtype)), keep(move_to(call.kwargs, device, dtype))
    try:
        output = function(*args, **kwargs)
    except Exception as error:
        return Closeness(problem=f"raises {type(error).__name__}: {str(error).splitlines()[0]}")
    return worst(output, call.output, rtol=budget)


def _first(judge, run, names, theirs, arrived, rungs, weights, outcome) -> Divergence | None:
    """The first block or function that is wrong in itself; else the code between; else weights, output."""
    for call, rung in zip(theirs, rungs, strict=True):
        if not rung.ok:
            if call.slot:
                return in_slot(judge, call, rung.budget)
            return inside_block(judge, call, rung.budget, weights)
    _, dtype = where(judge.candidate, judge.candidate)
    if dtype != torch.float32 and (found := _formulas(judge, run)) is not None:
        return found
    limit = tolerance(dtype).network
    for call, rung in zip(theirs, rungs, strict=True):
        came = arrived.get(call.key)
        given = Closeness(problem="is never called") if came is None else _inputs(came, call)
        if not given.ok(limit):
            found = between_blocks(judge, run, names, call, given, rung.budget, came)
            return _with_weights(found, weights, names)
    if weights:
        fault = weights[0]
        return Divergence(fault.name.rpartition(".")[0], "weights", "", fault.what, "weights")
    if not outcome.ok(limit):
        return _with_weights(between_blocks(judge, run, names, None, outcome, limit), weights, names)
    return None


def _with_weights(found: Divergence, weights: list[WeightFault], names: list[str]) -> Divergence:
    """Add the wrong weights outside all blocks, for example image_newline."""
    loose = [str(fault) for fault in weights if not any(fault.concerns(name) for name in names)]
    return replace(found, what="; ".join([*loose[:3], found.what]))


def _formulas(judge, run) -> Divergence | None:
    """Try exchanged functions in fp32 too: in a lower dtype rounding can hide a small mistake."""
    if judge.ours is None:
        return None
    ours, theirs = vars(judge.ours), vars(judge.theirs)
    exchanged = frozenset(n for n in theirs if callable(theirs[n]) and ours.get(n) is not theirs[n])
    if not exchanged:
        return None
    with traced(judge.reference, None, exchanged, modules=False) as calls:
        run(judge.reference)
    for call in calls:
        if not formula_holds(judge, call):
            return in_slot(judge, call, tolerance(torch.float32).block, torch.float32)
    return None


def _inputs(came: Call, call: Call) -> Closeness:
    mine = list(tensors((came.args, came.kwargs)))
    theirs = list(tensors((call.args, call.kwargs)))
    if len(mine) != len(theirs):
        return Closeness(problem=f"gets {len(mine)} tensors, expected {len(theirs)}")
    pairs = [closeness(a, b) for a, b in zip(mine, theirs, strict=True)]
    return max(
        pairs, key=lambda c: (bool(c.problem), not c.finite, c.relative), default=Closeness(1, 0, 0, 0, 1)
    )
