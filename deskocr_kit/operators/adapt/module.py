"""Use a plan in any model: replaced convolutions, a patched masked_scatter_, no hard-coded CUDA.

    with adapt(model, plan) as adapted:      # a Plan, a plan.json, or {slot: function or name}
        model.generate(...)
    print(adapted)                           # what was replaced, and what was left alone, with the reason

Everything is undone when the block ends (or by `adapted.undo()`): the module and torch are exactly as before,
also if several blocks are open and end in any order. Weights and their names are never changed.

    nn.Conv1d, 2d, 3d, ConvTranspose1d, 2d: each instance uses the plan's conv2d (state_dict, class stay)
    masked_scatter_  and masked_scatter: while the block is open, for tensors on the module's device only
    .cuda(…)         of tensors and modules, and .to("cuda…"): use the module's device, unless it is CUDA

The last two are changes to torch itself: they hold for every thread of the process while a block is open.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from ..plan import Plan
from ..substitutes.cases import ByCase
from ..substitutes.masked_scatter import out_of_place
from ..substitutes.registry import candidate
from .convolutions import patch_convolutions
from .patching import Patch, lock

SLOTS = ("conv2d", "masked_scatter_")


@dataclass
class Adapted:
    """The changes that `adapt` made; a context manager that undoes them."""

    module: nn.Module
    device: torch.device
    exchanged: dict[str, str] = field(default_factory=dict)  # module path -> new implementation
    left: dict[str, str] = field(default_factory=dict)  # module path -> reason
    patched: list[str] = field(default_factory=list)  # functions of torch
    redirected: int = 0  # calls of .cuda and .to("cuda") that used `device` instead
    _undo: list[Callable[[], None]] = field(default_factory=list, repr=False)

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
        lines = [f"{type(self.module).__name__} on {self.device}"]
        lines += [f"  {path}: {what}" for path, what in self.exchanged.items()]
        lines += [f"  {path}: left alone, {why}" for path, why in self.left.items()]
        lines += [f"  {name}: patched" for name in self.patched]
        return "\n".join([*lines, f'  .cuda and .to("cuda"): {self.redirected} calls redirected'])


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
        device: the device that .cuda() uses; None is the device of the module's first parameter.

    Raises ValueError for an unknown name, PlanError for a file that is not a valid plan.
    """
    first = next(module.parameters(), torch.empty(0))
    adapted = Adapted(module, torch.device(device) if device is not None else first.device)
    functions, names = _functions(plan, first.dtype)
    with lock:
        try:
            if "conv2d" in functions:
                adapted.exchanged, adapted.left, patches = patch_convolutions(
                    module, functions["conv2d"], names["conv2d"]
                )
                adapted._undo += [each.undo for each in patches]
            if "masked_scatter_" in functions:
                _patch_scatter(adapted, functions["masked_scatter_"])
            if adapted.device.type != "cuda":
                _redirect_cuda(adapted)
        except BaseException:
            adapted.undo()
            raise
    return adapted


def _functions(plan, dtype: torch.dtype) -> tuple[dict[str, Callable], dict[str, str]]:
    """{slot: function} and {slot: name to show} of a plan in any of its forms."""
    if isinstance(plan, (str, Path)):
        plan = Plan.load(plan)
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
    adapted.patched.append(f"{owner.__name__}.{name}")


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

    _patch(adapted, torch.Tensor, "masked_scatter_", guarded(in_place))
    _patch(adapted, torch.Tensor, "masked_scatter", guarded(out_of_place(in_place)))
    _patch(
        adapted,
        torch,
        "masked_scatter",
        lambda _: lambda input, mask, source: input.masked_scatter(mask, source),
    )


def _redirect_cuda(adapted: Adapted) -> None:
    def cuda(original: Callable) -> Callable:
        def to_our_device(self, device=None, non_blocking=False, **rest):
            adapted.redirected += 1
            if isinstance(self, nn.Module):
                return self.to(adapted.device)
            return self.to(adapted.device, non_blocking=non_blocking)

        return to_our_device

    def to(original: Callable) -> Callable:
        def to_our_device(self, *args, **kwargs):
            if args and _is_cuda(args[0]):
                args = (adapted.device, *args[1:])
                adapted.redirected += 1
            elif _is_cuda(kwargs.get("device")):
                kwargs["device"] = adapted.device
                adapted.redirected += 1
            return original(self, *args, **kwargs)

        return to_our_device

    for owner in (torch.Tensor, nn.Module):
        _patch(adapted, owner, "cuda", cuda)
        _patch(adapted, owner, "to", to)


def _is_cuda(device) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.partition(":")[0] == "cuda"
