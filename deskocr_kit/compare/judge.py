"""Judge one recorded call: the candidate's error, the error that its dtype makes anyway, and the budget."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..device.dtypes import dtype_name
from ..device.tolerances import tolerance
from .choices import other_choices, without_tokens
from .masks import exceeds
from .metrics import Closeness, worst
from .trace import Call, keep, move_to, slots_of, submodule, where
from .tree import mapped, tensors

FACTOR = 2.0  # the device may have twice the error of the same dtype on the CPU: another order of sums
RUN_FACTOR = 4.0  # in a whole run errors add up in another way
HALVES = (torch.float16, torch.bfloat16)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Judgement:
    """isolated: the candidate's error on the reference's inputs. peer: that of the same dtype on the CPU.

    formula: in a dtype of 16 bits, the error of the candidate's code in fp32 with its own weights on both
    sides, so that no rounding hides a mistake; None if it was not measured.
    """

    isolated: Closeness
    peer: Closeness | None
    budget: float
    formula: Closeness | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.isolated.ok(self.budget) and self.formula_ok

    @property
    def formula_ok(self) -> bool:
        return formula_ok(self.formula)


def formula_ok(formula: Closeness | None) -> bool:
    """Whether code is right in fp32, as far as it was measured."""
    return formula is None or formula.ok(tolerance(torch.float32).block)


class Judge:
    """Runs a recorded call on the candidate and measures its error."""

    def __init__(self, reference: nn.Module, candidate: nn.Module, budget: float | None, three_way: bool):
        self.reference, self.candidate = reference, candidate
        self.given, self.three_way = budget, three_way
        self.theirs, self.ours = slots_of(reference), slots_of(candidate)

    def judge(self, call: Call, arrived: Call | None = None) -> Judgement:
        """arrived: the candidate's own call, which shows the dtypes of its arguments."""
        mine, original = self.counterparts(call)
        module = submodule(self.candidate, call.module)
        device, dtype = where(module, self.candidate)
        if dtype not in HALVES and arrived is not None:  # kept in fp32 on purpose, within a port in 16 bits
            made = [t.dtype for t in tensors(arrived.output) if t.dtype in HALVES]
            dtype = made[0] if made else dtype
        call, arguments = self.fair(call, arrived, original, dtype)
        peer, budget, note = self.peer(call, arguments, module, original, dtype)
        isolated = attempt(mine, call, arguments, device, budget)
        if not isolated.finite and arrived is not None and finite(arrived.output):
            isolated = self.on_own_inputs(arrived, original, budget)
        formula, sixteen = None, self.three_way and dtype in HALVES and not call.slot
        if sixteen and not isolated.ok(budget) and isolated.finite and not isolated.problem:
            isolated, note = self.without_ties(call, arguments, mine, original, device, budget) or (
                isolated,
                note,
            )
        if sixteen and isolated.ok(budget):
            formula = self.formula(call, mine, original)
        return Judgement(isolated, peer, budget, formula, note)

    def counterparts(self, call: Call) -> tuple[Any, Any]:
        """The functions of a slot, or the modules: (of the candidate, of the reference)."""
        if call.slot:
            return getattr(self.ours, call.slot), getattr(self.theirs, call.slot)
        return submodule(self.candidate, call.module), submodule(self.reference, call.module)

    # ------------------------------------------------------------------ the candidate alone
    def fair(self, call: Call, arrived: Call | None, original, dtype: torch.dtype) -> tuple[Call, tuple]:
        """The call, and its arguments in the dtypes of the candidate's run.

        If a value of the reference is beyond the range of the candidate's dtype, the fault is where it was
        made. Then both get the value that fits, and the reference's result is computed again.
        """
        arguments = cast((call.args, call.kwargs), (arrived.args, arrived.kwargs) if arrived else None, dtype)
        if not self.beyond(call, arrived, dtype):
            return call, arguments
        args, kwargs = move_to(arguments, *where(self.reference, self.reference))
        try:
            return replace(call, output=keep(original(*keep(args), **keep(kwargs)))), arguments
        except Exception:
            return call, arguments

    @staticmethod
    def beyond(call: Call, arrived: Call | None, dtype: torch.dtype) -> bool:
        """Whether an input of the reference does not fit into the candidate's dtype."""
        given = list(tensors((call.args, call.kwargs)))
        cast_ = list(
            tensors(cast(given, list(tensors((arrived.args, arrived.kwargs))) if arrived else None, dtype))
        )
        return any(exceeds(a, b.dtype) for a, b in zip(given, cast_, strict=True))

    def on_own_inputs(self, arrived: Call, original, budget: float) -> Closeness:
        """The candidate's own call, which was finite, against the reference's code on the same inputs."""
        args, kwargs = move_to((arrived.args, arrived.kwargs), *where(self.reference, self.reference))
        try:
            return worst(arrived.output, original(*args, **kwargs), rtol=budget)
        except Exception as error:
            return Closeness(problem=raises(error))

    def without_ties(
        self, call: Call, arguments, mine, original, device, budget: float
    ) -> tuple[Closeness, str] | None:
        """The error without the tokens whose experts a near tie decides, and a remark; None without such."""
        results = []

        def run(function: Callable, given, where_: torch.device) -> None:
            args, kwargs = move_to(given, where_, None)
            results.append(function(*keep(args), **keep(kwargs)))

        home, dtype = where(self.reference, self.reference)[0], where(mine, self.candidate)[1]
        try:
            ties, n = other_choices(
                lambda: run(original, (call.args, call.kwargs), home),
                lambda: run(mine, arguments, device),
                dtype,
            )
        except Exception:
            return None
        rest = without_tokens(results[1], call.output, ties, n, budget) if ties else None
        if rest is None or not rest.ok(budget):
            return None
        return rest, f"near ties: {len(ties)} of {n} tokens have other experts in {dtype_name(dtype)}"

    # ------------------------------------------------------------------ the dtype alone
    def peer(self, call: Call, arguments, module, original, dtype) -> tuple[Closeness | None, float, str]:
        """Closeness of the reference's code in the candidate's dtype on the CPU, the budget, a remark."""
        budget, base = self.given or tolerance(dtype).block, where(self.reference, self.reference)[1]
        if not self.three_way or dtype == base or call.slot:
            return None, budget, ""
        # Frequencies stay in fp32, unless this module cannot work so.
        peer = attempt(lowered(original, module, dtype, False), call, arguments, CPU, budget)
        if peer.problem:
            peer = attempt(lowered(original, module, dtype, True), call, arguments, CPU, budget)
        if not peer.finite or peer.problem or self.given is not None:
            return peer, budget, ""
        widest = tolerance(dtype).network
        floor = torch.finfo(dtype).eps / 2 if dtype in HALVES else budget
        note = f"{dtype_name(dtype)} on the CPU is as inexact ({peer.relative:.1e}): keep this block in fp32"
        allowed = max(FACTOR * peer.relative, floor)
        return peer, min(allowed, widest), note if allowed > widest else ""

    # ------------------------------------------------------------------ the formula alone
    def formula(self, call: Call, mine: nn.Module, original: nn.Module) -> Closeness | None:
        """Closeness of the candidate's code to the reference's, in fp32 with the candidate's weights in both.

        On the CPU, because a device may compute fp32 with fewer bits. None if the candidate cannot run so.
        """
        try:
            twin, same = (copy.deepcopy(m).to(CPU).float() for m in (mine, original))
            take_weights(same, twin)
            given = move_to((call.args, call.kwargs), CPU, torch.float32)
            expected = same(*keep(given[0]), **keep(given[1]))
            narrow = Narrow()
            with narrow:
                output = twin(*keep(given[0]), **keep(given[1]))
        except Exception:
            return None
        found = worst(output, expected)
        # A module that casts to 16 bits itself is rounded here too: that is its dtype, not a mistake.
        return None if narrow.found and not found.ok(tolerance(torch.float32).block) else found


class Narrow(TorchDispatchMode):
    """Lists the operators that compute in fp16 or bf16; a cast alone does not count."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        halves = [t for t in tensors(output) if t.dtype in HALVES]
        name = function._schema.name
        if halves and not function.is_view and "copy" not in name and "empty" not in name:
            self.found.append(f"{name} in {dtype_name(halves[0].dtype)}")
        return output


# ---------------------------------------------------------------------- small things
def cast(given, like, dtype: torch.dtype):
    """A copy of a tree in the dtypes of `like`, a tree of the same shapes; without it in `dtype`."""
    kinds = [t.dtype for t in tensors(like)] if like is not None else []
    shapes = [t.shape for t in tensors(like)] if like is not None else []
    mine = list(tensors(given))
    alike = [t.shape for t in mine] == shapes and all(
        t.is_floating_point() == kind.is_floating_point for t, kind in zip(mine, kinds, strict=False)
    )
    wanted = {id(t): kind for t, kind in zip(mine, kinds, strict=False)} if alike else {}
    return mapped(given, lambda t: move_to(t, t.device, wanted.get(id(t), dtype)))


def attempt(function: Callable, call: Call, arguments, device, budget: float) -> Closeness:
    """Closeness of `function` on the recorded inputs of a call, `arguments` in the right dtypes."""
    args, kwargs = move_to(arguments, device, None)
    try:
        output = function(*keep(args), **keep(kwargs))
    except Exception as error:
        return Closeness(problem=raises(error))
    return worst(output, call.output, rtol=budget)


def raises(error: Exception) -> str:
    return f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def lowered(original: nn.Module, like: nn.Module, dtype: torch.dtype, buffers: bool) -> nn.Module:
    """A copy of `original` on the CPU in the dtypes of `like`, as a sound port has them.

    buffers: cast also floating buffers that no checkpoint stores, such as rotary frequencies.
    """
    kinds = {name: t.dtype for name, t in (*like.named_parameters(), *like.named_buffers())}
    new = copy.deepcopy(original).to(CPU)
    stored = set(new.state_dict())
    for name, t in (*new.named_parameters(), *new.named_buffers()):
        if t.is_floating_point() and (buffers or name in stored):
            t.data = t.data.to(kinds.get(name, dtype))
    return new


def take_weights(module: nn.Module, source: nn.Module) -> None:
    """Copy the parameters and buffers of the same names and shapes."""
    mine = dict(module.named_parameters()) | dict(module.named_buffers())
    for name, t in (*source.named_parameters(), *source.named_buffers()):
        if name in mine and mine[name].shape == t.shape:
            mine[name].data = t.data.clone()


def finite(value) -> bool:
    return all(
        not t.is_floating_point() or not bool((t.isnan() | t.isposinf()).any()) for t in tensors(value)
    )
