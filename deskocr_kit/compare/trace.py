"""Record the inputs and outputs of every block, module and slot of a run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor


@dataclass
class Call:
    """One call. `module` is its path; `slot` the name of the exchanged function, "" for a whole module."""

    module: str
    slot: str
    turn: int  # index of this call of the module (and slot), from 0
    args: tuple
    kwargs: dict
    output: object

    @property
    def name(self) -> str:
        return f"{self.module}:{self.slot}".strip(":") if self.slot else self.module

    @property
    def key(self) -> tuple[str, str, int]:
        return self.module, self.slot, self.turn


def keep(value):
    """A copy of all tensors in a value, so that later in-place operators do not change the record."""
    if isinstance(value, nn.Parameter):
        return value.detach()  # weights do not change, and a copy would take gigabytes
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, (tuple, list)):
        return type(value)(keep(v) for v in value) if type(value) in (tuple, list) else value
    if isinstance(value, dict):
        return {k: keep(v) for k, v in value.items()}
    return copy.deepcopy(value) if _changes(value) else value


def _changes(value) -> bool:
    """Whether a value is an object with state, such as the KV cache of another model.

    The run continues to fill it, so that the inputs of a block would be lost without a copy.
    """
    return hasattr(value, "__dict__") and not callable(value) and not isinstance(value, (type, nn.Module))


def move_to(value, device, dtype: torch.dtype | None):
    """All tensors of a value on `device`, the floating ones in `dtype`."""
    if isinstance(value, Tensor):
        return value.to(device, dtype if dtype is not None and value.is_floating_point() else value.dtype)
    if type(value) in (tuple, list):
        return type(value)(move_to(v, device, dtype) for v in value)
    if type(value) is dict:
        return {k: move_to(v, device, dtype) for k, v in value.items()}
    if not _changes(value):
        return value
    moved = copy.copy(value)  # a cache: its tensors, and its record of their device and dtype
    for name, held in vars(value).items():
        if isinstance(held, torch.device):
            held = torch.device(device)
        elif isinstance(held, torch.dtype) and held.is_floating_point:
            held = dtype or held
        object.__setattr__(moved, name, move_to(held, device, dtype))
    return moved


def blocks_of(model: nn.Module) -> list[str]:
    """Paths of the rungs for any model: the members of every ModuleList and the modules beside them."""

    def walk(module: nn.Module, path: str) -> Iterator[str]:
        for name, child in module.named_children():
            inner = f"{path}.{name}" if path else name
            if isinstance(child, nn.ModuleList):
                yield from (f"{inner}.{i}" for i in range(len(child)))
            elif any(isinstance(m, nn.ModuleList) for m in child.modules()):
                yield from walk(child, inner)
            else:
                yield inner

    return list(walk(model, "")) or [name for name, _ in model.named_children()] or [""]


@contextlib.contextmanager
def traced(model: nn.Module, names=None, slots="all", modules: bool = True) -> Iterator[list[Call]]:
    """Collect a Call for every call of the named modules (None: all) and of slots, in order of completion.

    Args:
        slots: "all", "outside" (only those outside the named modules), "none", or a set of names. A slot call
            inside a module that is not named gets the path of the innermost named one.
        modules: False collects only the calls of slots.
    """
    calls: list[Call] = []
    turns: dict[tuple[str, str], int] = {}
    path, open_calls, hooks = [""], [], []

    def add(module: str, slot: str, args, kwargs, output) -> None:
        turn = turns[module, slot] = turns.get((module, slot), -1) + 1
        calls.append(Call(module, slot, turn, args, kwargs, keep(output)))

    def before(name):
        def hook(module, args, kwargs):
            path.append(name)
            open_calls.append((keep(args), keep(kwargs)) if modules else ((), {}))

        return hook

    def after(name):
        def hook(module, args, kwargs, output):
            path.pop()
            args, kwargs = open_calls.pop()
            if modules and output is not None:  # None: the forward raised
                add(name, "", args, kwargs, output)

        return hook

    for name, module in model.named_modules():
        if names is None or name in names:
            hooks.append(module.register_forward_pre_hook(before(name), with_kwargs=True))
            hooks.append(module.register_forward_hook(after(name), with_kwargs=True, always_call=True))
    holder = slots_of(model) if slots != "none" else None
    originals = dict(vars(holder)) if holder is not None else {}

    def watched(name: str, function: Callable):
        def call(*args, **kwargs):
            if slots == "outside" and path[-1]:
                return function(*args, **kwargs)
            seen_args, seen_kwargs = keep(args), keep(kwargs)
            output = function(*args, **kwargs)
            add(path[-1], name, seen_args, seen_kwargs, output)
            return output

        return call

    for name, function in originals.items():
        if callable(function) and (isinstance(slots, str) or name in slots):
            setattr(holder, name, watched(name, function))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
        for name, function in originals.items():
            setattr(holder, name, function)


def slots_of(model: nn.Module):
    """The object with a model's exchangeable functions, or None."""
    return next((m.slots for m in model.modules() if hasattr(m, "slots")), None)


def where(module: nn.Module, fallback: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of a module: those of its first floating parameter, else those of `fallback`."""
    for owner in (module, fallback):
        for p in owner.parameters():
            if p.is_floating_point():
                return p.device, p.dtype
    return torch.device("cpu"), torch.float32
