"""The ladder: compare weights, blocks on given inputs, blocks in the run and logits; find the first fault.

    found = climb(reference, candidate, inputs)     # inputs of forward; any two modules of one structure
    print(found)                                    # table and first divergence
    found.first.module, found.first.operator, found.first.token, found.first.what

Isolated: each block of the candidate gets the inputs of the reference, so that only its own error counts.
Cumulative: the error in the candidate's run. If the candidate computes in a lower dtype, a copy of the
reference's block in that dtype on the CPU, the peer, measures the error of the dtype alone (three-way).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn as nn

from ..device.dtypes import dtype_name
from ..device.tolerances import tolerance
from .judge import HALVES, Judge, finite, formula_ok, raises
from .ladder_figure import draw
from .locate import Divergence, between_blocks, formula_holds, in_slot, inside_block
from .metrics import Closeness, worst
from .remarks import never_compared, other_attention
from .show import ladder_html, ladder_text
from .trace import Call, blocks_of, called_blocks, move_to, traced, where
from .tree import tensors
from .weights import WeightFault, compare_weights
from .whole_run import WholeRun


@dataclass(frozen=True)
class LayerComparison:
    """One block (or one function outside all blocks), one call of it."""

    name: str
    turn: int
    isolated: Closeness
    cumulative: Closeness | None  # None: the candidate's run did not reach it
    peer: Closeness | None  # the same dtype on the CPU; None if both models use the same dtype
    budget: float
    formula: Closeness | None = None  # in fp32, with the candidate's weights in both; see judge.py
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.isolated.ok(self.budget) and self.formula_ok

    @property
    def formula_ok(self) -> bool:
        return formula_ok(self.formula)


@dataclass
class Ladder:
    """All comparisons. `first` is None if nothing diverges.

    notes: remarks on the limits of this comparison. never_compared: blocks without a rung, with the reason.
    """

    weights: list[WeightFault]
    rungs: list[LayerComparison]
    output: Closeness
    first: Divergence | None
    raised: str = ""
    about: str = ""
    notes: list[str] = field(default_factory=list)
    never_compared: list[str] = field(default_factory=list)

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
    """A function that calls a model with `inputs`: a dict, a tuple, or one tensor.

    They are moved to the device of the model, floating tensors also to its dtype.
    """
    if callable(inputs):
        return inputs

    def run(model: nn.Module):
        given = move_to(inputs, *where(model, model))
        if isinstance(given, Mapping):
            return model(**given)
        return model(*((given,) if isinstance(given, torch.Tensor) else given))

    return run


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
        inputs: those of forward (dict, tuple, tensor), or a function that runs a model it is given. It may
            return tensors in any nesting, or text and integers, which must be equal.
        budget: relative error allowed to one block; if None, see `three_way` and device/tolerances.py.
        blocks: paths of the rungs; trace.blocks_of the reference if None.
        three_way: in a lower dtype, allow each block FACTOR times the error of a copy of the reference in
            that dtype on the CPU, but not more than a whole network may have; allow the output RUN_FACTOR
            times that of the whole copy. In 16 bits, compare each block in fp32 too: rounding hides mistakes.

    A candidate that raises is compared up to that point, and block by block.
    """
    run, names = runner(inputs), blocks or blocks_of(reference)
    weights = compare_weights(reference, candidate)
    with traced(reference, names, "outside") as theirs:
        expected = run(reference)
    if not blocks and set(names) - {call.module for call in theirs}:
        names = called_blocks(reference, run, names)
        with traced(reference, names, "outside") as theirs:
            expected = run(reference)
    raised = ""
    with traced(candidate, names, "outside") as ours:
        try:
            output = run(candidate)
        except Exception as error:
            output, raised = None, raises(error)[7:]
    arrived = {call.key: call for call in ours}
    judge = Judge(reference, candidate, budget, three_way)
    rungs = [_compare(judge, call, arrived.get(call.key)) for call in theirs]
    outcome = Closeness(problem=raised) if raised else worst(output, expected)
    device, dtype = where(candidate, candidate)
    whole = WholeRun(judge, run, names, dtype, expected)
    first = _first(judge, run, names, theirs, arrived, rungs, weights, outcome, output, whole)
    about = f"{type(candidate).__name__} in {dtype_name(dtype)} on {device}"
    notes = [f"{rung.name}: {rung.note}" for rung in rungs if rung.note] + whole.notes
    if other := other_attention(reference, candidate):
        notes.append(other)
        first = _noted(first, other) if first else None
    if dtype in HALVES and first is None:
        notes.append(
            f"between blocks, rounding to {dtype_name(dtype)} hides small mistakes: climb in fp32 on this "
            "device first"
        )
    unseen = never_compared(reference, names, theirs)
    unseen += ["the output: no tensor to compare"] if outcome.empty else []
    return Ladder(weights, rungs, outcome, first, raised, about, notes, unseen)


def _compare(judge: Judge, call: Call, arrived: Call | None) -> LayerComparison:
    found = judge.judge(call, arrived)
    cumulative = worst(arrived.output, call.output) if arrived is not None else None
    return LayerComparison(
        call.name, call.turn, found.isolated, cumulative, found.peer, found.budget, found.formula, found.note
    )


def _first(judge, run, names, theirs, arrived, rungs, weights, outcome, output, whole) -> Divergence | None:
    """The first block or function that is wrong in itself; else the code between; else weights, output."""
    for call, rung in zip(theirs, rungs, strict=True):
        if not rung.ok:
            came = arrived.get(call.key)
            if not rung.isolated.finite and came is not None and not finite((came.args, came.kwargs)):
                break  # it receives what was made before it
            if call.slot:
                return in_slot(judge, call, rung.budget)
            return _noted(inside_block(judge, call, arrived.get(call.key), rung.budget, weights), rung.note)
    _, dtype = where(judge.candidate, judge.candidate)
    if dtype != torch.float32 and (found := _formulas(judge, run)) is not None:
        return found
    for call in theirs:
        came = arrived.get(call.key)
        given = Closeness(problem="is never called") if came is None else _inputs(came, call)
        inputs = ((c.args, c.kwargs) if c is not None else None for c in (came, call))
        if not whole.allows(call, given, *inputs):
            found = between_blocks(judge, run, names, call, given, whole.limit(call), came)
            return _with_weights(found, weights, names)
    if weights:
        fault = weights[0]
        return Divergence(fault.name.rpartition(".")[0], "weights", "", str(fault), "weights")
    if not whole.excuses(outcome, output):
        found = between_blocks(judge, run, names, None, outcome, whole.limit(None))
        return _with_weights(found, weights, names)
    return None


def _noted(found: Divergence, note: str) -> Divergence:
    return replace(found, what=f"{found.what}; {note}") if note else found


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
    mine, theirs = (list(tensors((c.args, c.kwargs))) for c in (came, call))
    if len(mine) != len(theirs):
        return Closeness(problem=f"gets {len(mine)} tensors, expected {len(theirs)}")
    return worst((came.args, came.kwargs), (call.args, call.kwargs))
