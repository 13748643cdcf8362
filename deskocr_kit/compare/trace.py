"""Record the inputs and outputs of every block, module and slot of a run."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from model.slots import SPANNING

from .masks import fit
from .tree import mapped


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
    """A copy of all tensors in a tree, so that later in-place operators do not change the record.

    Objects such as the KV cache of another model are copied too, because the run continues to fill them.
    """
    return mapped(value, lambda t: t.detach() if isinstance(t, nn.Parameter) else t.detach().clone())


def move_to(value, device, dtype: torch.dtype | None):
    """A copy of a tree (see tree.py) with all tensors on `device`, the floating ones in `dtype`.

    Values beyond the range of `dtype` become its largest or smallest number: a mask of one dtype becomes a
    mask of another, and no infinity appears that the model does not make.
    """

    def moved(t: Tensor) -> Tensor:
        if dtype is None or not t.is_floating_point():
            return t.to(device)
        return fit(t.to(device, dtype), t) if t.dtype != dtype else t.to(device)

    def attribute(held):  # a cache has a record of its device and dtype
        if isinstance(held, torch.device):
            return torch.device(device)
        return dtype if dtype and isinstance(held, torch.dtype) and held.is_floating_point else held

    return mapped(value, moved, attribute)


def blocks_of(model: nn.Module) -> list[str]:
    """Paths of the rungs for any model: the members of every ModuleList and the modules beside them.

    A member that has no forward, such as a ModuleList in a ModuleList, is replaced by its own members.
    """

    def walk(module: nn.Module, path: str) -> Iterator[str]:
        for name, child in module.named_children() if not isinstance(module, torch.jit.ScriptModule) else ():
            inner = f"{path}.{name}" if path else name
            if isinstance(child, (nn.ModuleList, nn.ModuleDict)):
                for key, member in child.named_children():
                    yield from [f"{inner}.{key}"] if _callable(member) else walk(member, f"{inner}.{key}")
            elif not _callable(child) or _has_lists(child):
                yield from walk(child, inner)
            else:
                yield inner

    return list(walk(model, "")) or [""]


def _has_lists(module: nn.Module) -> bool:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return not scripted and any(isinstance(m, nn.ModuleList) for m in module.modules())


def _callable(module: nn.Module) -> bool:
    """Whether a module has a forward of its own."""
    scripted = isinstance(module, torch.jit.ScriptModule)
    return scripted or type(module).forward is not nn.Module.forward or "forward" in vars(module)


def hooked(module: nn.Module, before: Callable, after: Callable | None = None, **options) -> list:
    """Handles of a forward pre-hook and a forward hook, which runs also if the forward raises.

    A ScriptModule refuses its own methods for hooks, but calls the hooks. Its compiled parts call none.
    """
    handles = [nn.Module.register_forward_pre_hook(module, before, **options)]
    if after is not None:
        handles.append(nn.Module.register_forward_hook(module, after, always_call=True, **options))
    return handles


def called_blocks(model: nn.Module, run: Callable[[nn.Module], object], names: list[str]) -> list[str]:
    """`names`, where a block that `run` does not call is replaced by those of its parts that it calls.

    Some models call methods of a block, or the members of a list in it, and not the block. Needs a run.
    """
    called: dict[str, None] = {}
    hooks = []
    for name, module in model.named_modules():
        hooks += hooked(module, lambda module, args, name=name: called.setdefault(name))
    try:
        run(model)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name in names:
        inner = [c for c in called if c.startswith(f"{name}." if name else "") and c]
        if name in called or not inner:
            found.append(name)
        else:
            found += [c for c in inner if not any(c.startswith(f"{other}.") for other in inner)]
    return found


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
            open_calls.append((name, *((keep(args), keep(kwargs)) if modules else ((), {}))))

        return hook

    def after(name):
        def hook(module, args, kwargs, output):
            if not open_calls or open_calls[-1][0] != name:
                return  # another hook raised before this one saw the call
            path.pop()
            _, args, kwargs = open_calls.pop()
            if modules and output is not None:  # None: the forward raised
                add(name, "", args, kwargs, output)

        return hook

    for name, module in model.named_modules():
        if names is None or name in names:
            hooks += hooked(module, before(name), after(name), with_kwargs=True)
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
        if name in SPANNING:  # a function around it would change which slots the network calls
            continue
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


def submodule(model: nn.Module, path: str) -> nn.Module:
    """The module at a path; a ScriptModule has no get_submodule of its own."""
    return model.get_submodule(path) if path else model


def where(module: nn.Module, fallback: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and dtype of the first floating parameter of a module, else of `fallback`, else of a buffer.

    Buffers come last, because many stay in fp32 in a module that works in 16 bits.
    """
    kinds = (module.parameters(), fallback.parameters(), module.buffers(), fallback.buffers())
    for t in itertools.chain(*kinds):
        if t.is_floating_point():
            return t.device, t.dtype
    return torch.device("cpu"), torch.float32
