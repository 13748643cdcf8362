"""Use a plan in any model: replaced convolutions, a patched masked_scatter_, no hard-coded CUDA.

    with adapt(model, plan) as adapted:      # a Plan, a plan.json, or {slot: function or name}
        model.generate(...)
    print(adapted)                           # what was replaced, and what was left alone, with the reason

Everything is undone when the block ends (or by `adapted.undo()`): the module and torch are exactly as before,
also if several blocks are open and end in any order. Weights and their names are never changed.

    nn.Conv1d, 2d, 3d, ConvTranspose1d, 2d: each instance uses the plan's conv2d (state_dict, class stay)
    F.conv1d, …      the same, inside a forward of the module and on its device
    masked_scatter_  and masked_scatter: while the block is open, for tensors on the module's device only
    .cuda(…)         of tensors and modules, .to("cuda…") and torch.zeros(…, device="cuda"): use the module's
                     device, unless it is CUDA

The last three are changes to torch itself: they hold for every thread of the process while a block is open.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ...device.dtypes import dtype_name
from ...device.module_place import place_of
from ..plan import Plan, PlanError
from ..substitutes.cases import ByCase
from ..substitutes.masked_scatter import out_of_place
from ..substitutes.registry import candidate
from .convolutions import compiled, patch_convolutions, takes_any
from .cuda import redirect
from .functional import Running, Substitute, patch_functions
from .patching import Patch, lock

SLOTS = ("conv2d", "masked_scatter_")


@dataclass
class Adapted:
    """The changes that `adapt` made; a context manager that undoes them."""

    module: nn.Module
    device: torch.device
    prepared: dict[str, str] = field(default_factory=dict)  # path of a layer -> its new implementation
    functional: dict[str, str] = field(default_factory=dict)  # place of a call as a function -> the same
    kept: dict[str, str] = field(default_factory=dict)  # path or place -> reason
    patched: list[str] = field(default_factory=list)  # functions of torch
    redirected: int = 0  # calls that named CUDA and used `device` instead
    running: Running | None = field(default=None, repr=False)
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def exchanged(self) -> dict[str, str]:
        """{path or place: new implementation}. Before the first run: every prepared layer. After it: the
        layers that were called, and the calls as functions (`F.conv1d(x, self.conv.weight)`).
        """
        idle = self.not_called
        return {path: what for path, what in self.prepared.items() if path not in idle} | self.functional

    @property
    def not_called(self) -> list[str]:
        """Prepared layers whose forward did not run, though the module did: nothing was exchanged there."""
        calls = self.running.calls if self.running is not None else {}
        ran = any(calls.values())
        return [path for path in self.prepared if ran and not calls.get(path, 0)]

    @property
    def left(self) -> dict[str, str]:
        """{path or place: reason} of what stays with torch. A layer with its own forward is left as long as
        that did not call one of torch's functions.
        """
        done = {place.rpartition(": ")[0] for place in self.functional}
        return {path: why for path, why in self.kept.items() if path not in done}

    def __enter__(self) -> Adapted:
        return self

    def __exit__(self, *error) -> None:
        self.undo()

    def undo(self) -> None:
        """Restore everything; a second call does nothing."""
        with lock:
            while self._undo:
                self._undo.pop()()

    def __repr__(self) -> str:
        ran = self.running is None or any(self.running.calls.values())
        lines = [f"{type(self.module).__name__} on {self.device}" + ", prepared but not run yet" * (not ran)]
        lines += [f"  {path}: {what}" for path, what in self.exchanged.items()]
        lines += [f"  {path}: its forward is never called" for path in self.not_called]
        lines += [f"  {path}: left alone, {why}" for path, why in self.left.items()]
        lines += [f"  {name}: patched" for name in self.patched]
        return "\n".join([*lines, f'  .cuda, .to("cuda"), device="cuda": {self.redirected} calls redirected'])


def adapt(
    module: nn.Module,
    plan: Plan | str | Path | Mapping[str, Callable | str],
    device: torch.device | str | None = None,
) -> Adapted:
    """Apply `plan` to `module` until the `with` block ends or `.undo()` is called.

    Args:
        module: any nn.Module, already on its device.
        plan: a Plan or the path of one (the choices for the module's dtype are used), or {slot: function or
            name of a candidate} for the slots "conv2d" and "masked_scatter_". Other slots are ignored: they
            exist only in our own network. A slot that is not named does not change.
        device: the device that .cuda() uses; None is the device of the module's first parameter or buffer.

    Raises ValueError for an unknown name, PlanError for a file that is not a valid plan, and for a plan
    without the module's dtype.
    """
    where, dtype = place_of(module)
    adapted = Adapted(module, torch.device(device) if device is not None else where)
    functions, names = _functions(plan, dtype)
    with lock:
        try:
            if "conv2d" in functions:
                _patch_convolutions(adapted, functions["conv2d"], names["conv2d"])
            if "masked_scatter_" in functions:
                _patch_scatter(adapted, functions["masked_scatter_"])
            if adapted.device.type != "cuda":
                redirect(adapted, functools.partial(_patch, adapted))
        except BaseException:
            adapted.undo()
            raise
    return adapted


def _functions(plan, dtype: torch.dtype) -> tuple[dict[str, Callable], dict[str, str]]:
    """{slot: function} and {slot: name to show} of a plan in any of its forms."""
    if isinstance(plan, (str, Path)):
        plan = Plan.load(plan)
    if isinstance(plan, Plan) and dtype_name(dtype) not in plan.choices:
        there = " and ".join(plan.choices) or "no dtype"
        raise PlanError(
            f"{plan.path or 'plan'}: it has choices for {there}, and the module is in {dtype_name(dtype)}: "
            "convert the module (.to(dtype)), or prove it in this dtype"
        )
    given = plan.functions(dtype) if isinstance(plan, Plan) else dict(plan)
    found = {slot: given[slot] for slot in SLOTS if slot in given}
    if "masked_scatter_" not in found and isinstance(given.get("place_images"), str):
        found["masked_scatter_"] = given["place_images"]  # the same method under the name of the model's slot
    names = {slot: _called(f) for slot, f in found.items()}
    functions = {slot: candidate(slot, f) if isinstance(f, str) else f for slot, f in found.items()}
    return functions, names


def _called(function: Callable | str) -> str:
    """The name to show; a ByCase function has the names of all its implementations."""
    if isinstance(function, ByCase):
        return " or ".join(dict.fromkeys(function.names.values()))
    return function if isinstance(function, str) else getattr(function, "__name__", repr(function))


# ---------------------------------------------------------------------- functions of torch
def _patch(adapted: Adapted, owner, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace owner.name by make(owner.name)."""
    adapted._undo.append(Patch(owner, name, make).undo)


def _patch_convolutions(adapted: Adapted, function: Callable, name: str) -> None:
    """The layers of the module, then the functions of torch that its code calls."""
    general, substitute = takes_any(function), Substitute(function)
    adapted.prepared, adapted.kept, patches = patch_convolutions(adapted.module, substitute, name, general)
    adapted._undo += [each.undo for each in patches]
    adapted.kept |= compiled(adapted.module)
    adapted.running = Running(adapted.module)
    adapted._undo.append(adapted.running.remove)
    patch_functions(adapted, substitute, name, general, functools.partial(_patch, adapted))


def _patch_scatter(adapted: Adapted, in_place: Callable) -> None:
    inside = threading.local()  # the substitute may itself call torch's operator, on the host

    def guarded(substitute: Callable) -> Callable[[Callable], Callable]:
        def make(original: Callable) -> Callable:
            def masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
                if getattr(inside, "busy", False) or self.device != adapted.device:
                    return original(self, mask, source)
                inside.busy = True
                try:
                    return substitute(self, mask, source)
                finally:
                    inside.busy = False

            return masked_scatter

        return make

    by_method = lambda _: lambda input, mask, source: input.masked_scatter(mask, source)  # noqa: E731
    for owner, name, make in (
        (torch.Tensor, "masked_scatter_", guarded(in_place)),
        (torch.Tensor, "masked_scatter", guarded(out_of_place(in_place))),
        (torch, "masked_scatter", by_method),
    ):
        _patch(adapted, owner, name, make)
        adapted.patched.append(f"{owner.__name__}.{name}")
