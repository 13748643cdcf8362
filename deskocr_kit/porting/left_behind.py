"""Tensors that `module.to(device)` does not move: attributes that are neither parameter nor buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
from torch import Tensor

_HELD = ("_parameters", "_buffers", "_modules")


def left_behind(module: nn.Module, device: torch.device) -> list[str]:
    """Names of the tensors that are attributes of a module (also in lists, tuples and dicts) and not on
    `device`: "encoder.scale", "anchors[0]".
    """
    return [name for name, tensor, _ in attributes(module) if not same_place(tensor.device, device)]


def same_place(a: torch.device, b: torch.device) -> bool:
    """Whether two devices are the same; without an index, the first is meant."""
    return a.type == b.type and (a.index or 0) == (b.index or 0)


def attributes(module: nn.Module) -> Iterator[tuple[str, Tensor, Callable[[Tensor], None]]]:
    """(name, tensor, function that replaces it) of every tensor that is a plain attribute."""
    for path, part in module.named_modules():
        for name, value in list(vars(part).items()):
            if name not in _HELD:
                yield from _inside(f"{path}.{name}".lstrip("."), value, _setter(part, name))


def _inside(name: str, value, put: Callable) -> Iterator[tuple[str, Tensor, Callable]]:
    if isinstance(value, Tensor):
        yield name, value, put
    elif type(value) in (list, dict):
        pairs = list(enumerate(value) if type(value) is list else value.items())
        for key, each in pairs:
            yield from _inside(f"{name}[{key!r}]", each, lambda t, key=key: value.__setitem__(key, t))
    elif type(value) is tuple:
        for i, each in enumerate(value):
            change = lambda t, i=i: put((*value[:i], t, *value[i + 1 :]))  # noqa: E731
            yield from _inside(f"{name}[{i}]", each, change)


def _setter(part: nn.Module, name: str) -> Callable[[object], None]:
    return lambda value: object.__setattr__(part, name, value)


def explained(error: RuntimeError, module: nn.Module, device: torch.device) -> RuntimeError | None:
    """A clearer error for a run that mixed two devices, or None if that is not what `error` says."""
    text = str(error)
    if not any(words in text for words in MIXED):
        return None
    names = left_behind(module, device)
    if names:
        remedy = (
            f"Left behind: {_listed(names)}. A plain attribute of a module does not move with it: call "
            "register_buffer(name, tensor) in its __init__, or move the module with port_module"
        )
    else:
        remedy = (
            "No attribute of the module is on another device, so a tensor was created in its forward: pass "
            "device=x.device there; the traceback above shows the line"
        )
    return RuntimeError(f"{type(module).__name__} on {device}: {text.splitlines()[0]} {remedy}")


#: The words of PyTorch and of torch_npu about tensors of two devices.
MIXED = (
    "Expected all tensors to be on the same device",
    "expected all tensors to be on the same device",
    "is on cpu, but expected",
    "but got index is on cpu",
    "indices should be either on",
)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
