"""Find the module, the operator, the token and the mistake in a wrong block."""

from __future__ import annotations

import contextlib
import copy
import functools
from dataclasses import dataclass, replace

import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..device.dtypes import dtype_name
from ..device.tolerances import tolerance
from .hypotheses import guess
from .judge import HALVES, Narrow, lowered, raises
from .metrics import Closeness, place, tensors, worst
from .operators import OperatorFault, first_operator, raising
from .overflow import first_overflow
from .router import compare_decisions, decisions, routers
from .trace import Call, keep, move_to, submodule, traced, where
from .weights import WeightFault


@dataclass(frozen=True)
class Divergence:
    """The first divergence of the candidate from the reference.

    module: path, "" for the code of the root. operator: slot, ATen operator or "weights". token: the first
    wrong position. what: description of the mistake. rung: "weights", "block", "slot", "between blocks".
    site: source line of the operator, if known.
    """

    module: str
    operator: str
    token: str
    what: str
    rung: str
    site: str = ""

    def __str__(self) -> str:
        parts = [f"module {self.module or '(the root)'}", f"operator {self.operator}"]
        parts += [self.token] if self.token else []
        return f"first divergence: {', '.join(parts)}: {self.what}" + (f" ({self.site})" if self.site else "")


def in_slot(judge, call: Call, budget: float, dtype: torch.dtype | None = None) -> Divergence:
    """The divergence of a function that is wrong in itself. dtype: None for that of the candidate."""
    function, original = judge.counterparts(call)
    module = submodule(judge.candidate, call.module)
    device, own = where(module, judge.candidate)
    dtype = dtype or own
    output, problem = _run(function, call, device, dtype)
    close = Closeness(problem=problem) if problem else worst(output, call.output, rtol=budget)
    args, kwargs = move_to(call.args, "cpu", torch.float32), move_to(call.kwargs, "cpu", torch.float32)
    words = "" if problem else guess(call.slot, args, kwargs, move_to(output, "cpu", torch.float32), budget)
    if not words and call.slot == "conv2d":
        words = _wrong_convolution(function, args, kwargs, close.problem)
    if not words and not close.finite and (made := _overflow(judge, call, dtype)):
        words = made.what
    words = words or narrowed(function, original, call, device)
    operator = None if words else side_by_side(original, function, call, device)
    detail = words or (f"{operator.what}; {close}" if operator else str(close))
    name = getattr(function, "__qualname__", type(function).__name__)
    if name != getattr(original, "__qualname__", ""):
        detail += f" [{getattr(function, '__module__', '')}.{name}]"
    return Divergence(
        call.module, call.slot, _token(close, call), detail, "slot", operator.site if operator else ""
    )


def inside_block(
    judge, call: Call, arrived: Call | None, budget: float, weights: list[WeightFault]
) -> Divergence:
    """Run the block on the reference's inputs; find the first wrong module or slot, innermost first.

    arrived: the candidate's call.
    """
    original, mine = (submodule(m, call.module) for m in (judge.reference, judge.candidate))
    device, dtype = where(mine, judge.candidate)
    _, arguments = judge.fair(call, arrived, original, dtype)
    with traced(original, None, "all") as inner:
        original(*keep(call.args), **keep(call.kwargs))
    with traced(mine, None, "all") as theirs, contextlib.suppress(Exception):
        given = move_to(arguments, device, None)
        mine(*given[0], **given[1])
    came = {step.key: step for step in theirs}  # shows the dtypes of the arguments
    for step in inner:
        full = replace(step, module=".".join(p for p in (call.module, step.module) if p))
        found = judge.judge(full, came.get(step.key))
        if found.ok and (not full.slot or formula_holds(judge, full)):
            continue
        if full.slot and found.ok:
            return in_slot(judge, full, tolerance(torch.float32).block, torch.float32)
        if full.slot:
            return in_slot(judge, full, found.budget)
        return in_module(judge, full, _decisive(found), found.budget, weights)
    # Each part agrees, the whole does not: the rounding of many parts, or code outside the parts.
    return in_module(judge, call, _decisive(judge.judge(call, arrived)), budget, weights)


def _decisive(found) -> Closeness:
    return found.formula if found.isolated.ok(found.budget) and not found.formula_ok else found.isolated


def formula_holds(judge, call: Call) -> bool:
    """Whether a function is right in fp32: in a lower dtype rounding can hide a small mistake."""
    function, _ = judge.counterparts(call)
    device, dtype = where(submodule(judge.candidate, call.module), judge.candidate)
    if dtype == torch.float32:
        return True
    output, problem = _run(function, call, device, torch.float32)
    if problem:
        return True  # it does not accept fp32, so this test cannot decide
    return worst(output, call.output).ok(tolerance(torch.float32).block)


def in_module(judge, call: Call, close: Closeness, budget: float, weights: list[WeightFault]) -> Divergence:
    """The divergence of a module whose weights, settings, router or own code are wrong."""
    mine, theirs = submodule(judge.candidate, call.module), submodule(judge.reference, call.module)
    device, dtype = where(mine, judge.candidate)
    twin = mine if dtype == torch.float32 else copy.deepcopy(mine).float()  # without rounding errors
    base = theirs if dtype == torch.float32 else lowered(theirs, mine, dtype, False).float()
    operator = side_by_side(base, twin, call, device)
    if close.problem.startswith("raises"):
        operator = _raises(mine, call, device, dtype) or operator
    name = operator.operator if operator else "several"
    words = [str(f) for f in weights if f.concerns(call.module)][:3]
    words += settings(mine, theirs) + rounded_buffers(mine, theirs)
    words += _routing(twin, theirs, call, device)
    words += _not_called(twin, theirs, call, device)
    made = _overflow(judge, call, dtype) if not words and not close.finite else None
    if made:
        words, name, operator = [made.what], made.operator or name, replace(made, what="")
    if operator and (not words or operator.what.startswith("raises")):
        words = [operator.what, *words]
    if operator and words == [operator.what] and _unchanged(twin, call, device):
        words = [f"returns its input unchanged; {operator.what}"]
    token = _token(close, call)
    return Divergence(
        call.module, name, token, "; ".join(words) or str(close), "block", operator.site if operator else ""
    )


def between_blocks(
    judge, run, names, call: Call | None, given: Closeness, budget: float, came: Call | None = None
) -> Divergence:
    """All blocks are right, but one gets other inputs, so the code around it is wrong.

    came: the candidate's call.
    """
    skipped = tuple(_blocks(m, names) for m in (judge.reference, judge.candidate))
    theirs, ours = (functools.partial(run, m) for m in (judge.reference, judge.candidate))
    operator = first_overflow(theirs, ours, skipped) if not given.finite else None
    operator = operator or first_operator(theirs, ours, max(budget, 1e-3), skipped)
    target = f"the input of {call.name}" if call is not None else "the output"
    what = f"{target} differs, although every block is right in itself ({given})"
    what = f"{moved}; {what}" if (moved := _one_position_off(came, call)) else what
    shape = tuple(next(tensors((call.args, call.kwargs)), torch.empty(0)).shape) if call is not None else ()
    token = (operator.token if operator else "") or place(given.first, shape)
    if operator is None:
        return Divergence(
            call.module if call else "", "input" if call else "output", token, what, "between blocks"
        )
    what = f"{operator.what}; {what}"
    return Divergence("", operator.operator, token, what, "between blocks", operator.site)


def _blocks(model: nn.Module, names: list[str]) -> list[nn.Module]:
    known = dict(model.named_modules())
    return [known[name] for name in names if name in known and name]


# ---------------------------------------------------------------------- words
def narrowed(function, original, call: Call, device) -> str:
    """The first operator of `function` that computes in half precision, although its inputs are fp32.

    "" if the original does the same or there is none. Example: a softmax in fp16. Its error is rounding,
    which no formula explains.
    """
    narrow: list[list[str]] = []
    for each, where_ in ((original, "cpu"), (function, device)):
        args, kwargs = (keep(move_to(given, where_, torch.float32)) for given in (call.args, call.kwargs))
        with Narrow() as mode, contextlib.suppress(Exception):
            each(*args, **kwargs)
        narrow.append(mode.found)
    theirs, ours = narrow
    return f"computed in half precision: {ours[0]}" if ours and not theirs else ""


def _raises(function, call: Call, device, dtype) -> OperatorFault | None:
    args, kwargs = (keep(move_to(given, device, dtype)) for given in (call.args, call.kwargs))
    return raising(functools.partial(function, *args, **kwargs))


def _unchanged(module, call: Call, device) -> bool:
    output, _ = _run(module, call, device, torch.float32)
    first = next(tensors(call.args), None)
    if not isinstance(output, torch.Tensor) or first is None or output.shape != first.shape:
        return False
    return torch.equal(output.detach().cpu().float(), first.detach().cpu().float())


def _one_position_off(came: Call | None, call: Call | None) -> str:
    """A message if an input equals that of the reference, shifted by one position; else ""."""
    if came is None or call is None:
        return ""
    pairs = zip(tensors((came.args, came.kwargs)), tensors((call.args, call.kwargs)), strict=False)
    for ours, theirs in pairs:
        if ours.shape != theirs.shape or ours.dim() < 2 or ours.shape[-2] < 3 or not ours.is_floating_point():
            continue
        a, b = ours.detach().cpu().float(), theirs.detach().cpu().float()
        for word, mine, right in (
            ("early", a[..., :-1, :], b[..., 1:, :]),
            ("late", a[..., 1:, :], b[..., :-1, :]),
        ):
            if not worst(a, b).ok(1e-3) and worst(mine, right).ok(1e-3):
                return f"an input is one position too {word}"
    return ""


def _not_called(twin: nn.Module, theirs: nn.Module, call: Call, device) -> list[str]:
    """Children that the module of the reference calls and that of the candidate does not."""
    called = []
    for module, where_ in ((theirs, "cpu"), (twin, device)):
        with traced(module, None, "none") as calls:
            _run(module, call, where_, torch.float32)
        called.append({each.module for each in calls})
    there, here = called
    lost = [name for name in sorted(there - here) if name and name.rpartition(".")[0] not in there - here]
    return [f"{name} is never called" for name in lost] if here else []


def settings(mine: nn.Module, theirs: nn.Module) -> list[str]:
    """Differences of two modules in plain attributes (numbers, flags, texts)."""
    plain = (bool, int, float, str, tuple)
    found = []
    for name, value in vars(theirs).items():
        other = vars(mine).get(name)
        if not name.startswith("_") and name != "training" and isinstance(value, plain) and other != value:
            found.append(f"{name} is {other!r}, expected {value!r}")
    return found


def rounded_buffers(mine: nn.Module, theirs: nn.Module) -> list[str]:
    """Buffers that no checkpoint stores, such as rotary frequencies, in 16 bits; a loaded model has fp32."""
    stored, expected = set(theirs.state_dict()), dict(theirs.named_buffers())
    return [
        f"{name} is rounded to {dtype_name(t.dtype)}: keep this buffer in {dtype_name(expected[name].dtype)}"
        for name, t in mine.named_buffers()
        if t.dtype in HALVES and name in expected and name not in stored and expected[name].dtype != t.dtype
    ]


def _overflow(judge, call: Call, dtype: torch.dtype) -> OperatorFault | None:
    """The operator that makes the first NaN or Inf of a call in the candidate's own dtype."""
    mine, theirs = judge.counterparts(call)
    device, _ = where(submodule(judge.candidate, call.module), judge.candidate)
    runs = []
    for function, where_, kind in ((theirs, "cpu", None), (mine, device, dtype)):
        args, kwargs = (keep(move_to(given, where_, kind)) for given in (call.args, call.kwargs))
        runs.append(functools.partial(function, *args, **kwargs))
    return first_overflow(*runs)


def side_by_side(theirs, ours, call: Call, device) -> OperatorFault | None:
    """The first operator that differs. Both functions run in fp32, each on its own device."""
    runs = []
    for function, where_ in ((theirs, "cpu"), (ours, device)):
        # Moved before the walk, because the copies to a device are not operators of the function.
        args, kwargs = (keep(move_to(given, where_, torch.float32)) for given in (call.args, call.kwargs))
        runs.append(functools.partial(function, *args, **kwargs))
    return first_operator(runs[0], runs[1], tolerance(torch.float32).block)


def _routing(twin, theirs, call: Call, device) -> list[str]:
    if not routers(theirs):
        return []
    there = decisions(theirs, lambda: _run(theirs, call, "cpu", torch.float32))
    here = decisions(twin, lambda: _run(twin, call, device, torch.float32))
    return [f"router: {r.verdict}" for r in compare_decisions(here, there) if r.verdict != "agrees"]


def _wrong_convolution(function, args: tuple, kwargs: dict, problem: str) -> str:
    """Describe wrong arguments of F.unfold. It raises or gives another shape, so only its call is checked."""
    x, weight, _, stride, padding = (
        *args,
        *[kwargs.get(n, d) for n, d in (("stride", 1), ("padding", 0))][: 5 - len(args)],
    )
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, called, types, given=(), options=None):
            if "im2col" in called._schema.name:
                seen.append(tuple(int(pair[0]) for pair in given[2:5]))
            return called(*given, **(options or {}))

    with Watch(), contextlib.suppress(RuntimeError):
        function(x.clone(), weight, *args[2:], **kwargs)
    if not seen or seen[0] == (1, padding, stride):
        return ""
    dilation, padded, step = seen[0]
    words = "padding passed as dilation" if dilation == padding else "wrong arguments"
    return (
        f"{words}: F.unfold has dilation {dilation}, padding {padded}, stride {step}; "
        f"expected 1, {padding}, {stride}" + (f" ({problem})" if problem else "")
    )


def _token(close: Closeness, call: Call) -> str:
    first = next(tensors(call.output), None)
    return place(close.first, tuple(first.shape)) if first is not None else ""


def _run(function, call: Call, device, dtype) -> tuple[object, str]:
    """(output, "") of a function on the inputs of a call, or (None, the exception as text)."""
    args, kwargs = keep(move_to(call.args, device, dtype)), keep(move_to(call.kwargs, device, dtype))
    try:
        return function(*args, **kwargs), ""
    except Exception as error:
        return None, raises(error)
