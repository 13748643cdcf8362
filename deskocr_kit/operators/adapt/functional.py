"""Exchange convolutions that a model calls as functions: F.conv1d(x, self.conv.weight), subclasses with their
own forward, convolutions by hand.

The functions of torch are patched, but the substitute runs only inside a forward of the adapted module and on
its device. Another model in the same process, such as a reference on the CPU, is not changed.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ...opcount.recorder import call_site
from ..substitutes import conv_other
from .convolutions import in_the_form_of_torch

#: {function of torch: (its form, number of dimensions, whether it is transposed)}.
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], int, bool]] = {
    "conv1d": (conv_other.conv1d, 1, False),
    "conv2d": (conv_other.conv2d, 2, False),
    "conv3d": (conv_other.conv3d, 3, False),
    "conv_transpose1d": (conv_other.conv_transpose1d, 1, True),
    "conv_transpose2d": (conv_other.conv_transpose2d, 2, True),
}
PLAIN = inspect.Signature([
    inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
    for name, default in (
        ("input", inspect.Parameter.empty), ("weight", inspect.Parameter.empty), ("bias", None),
        ("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1),
    )
])  # fmt: skip
TRANSPOSED = inspect.Signature([
    inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
    for name, default in (
        ("input", inspect.Parameter.empty), ("weight", inspect.Parameter.empty), ("bias", None),
        ("stride", 1), ("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1),
    )
])  # fmt: skip

_thread = threading.local()  # .busy: a substitute runs, and its own convolutions are torch's


class Substitute:
    """Calls a candidate; the convolutions inside it are torch's own. A class, so that it can be pickled."""

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *args, **kwargs):
        before, _thread.busy = getattr(_thread, "busy", False), True
        try:
            return self.function(*args, **kwargs)
        finally:
            _thread.busy = before


class Running:
    """The path of the module that runs in this thread, by hooks on every module of PyTorch.

    Hooks of the adapted modules themselves would be copied and pickled with them.
    """

    def __init__(self, module: nn.Module):
        self.paths = {id(each): path for path, each in module.named_modules()}
        self.calls: dict[str, int] = dict.fromkeys(self.paths.values(), 0)
        self._local = threading.local()
        hooks = torch.nn.modules.module
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, always_call=True),
        ]

    @property
    def path(self) -> str | None:
        """The innermost running module; None outside of all."""
        stack = self._stack()
        return stack[-1] if stack else None

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _stack(self) -> list[str]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    def _enter(self, module, args) -> None:
        if id(module) in self.paths:
            path = self.paths[id(module)]
            self._stack().append(path)
            self.calls[path] += 1

    def _leave(self, module, args, output) -> None:
        if id(module) in self.paths and self._stack():
            self._stack().pop()


def patch_functions(adapted, function: Callable, name: str, general: bool, patch: Callable) -> None:
    """Patch torch's functions so that the adapted module's own calls use `function`.

    Notes every kind of call in `adapted.functional` or `adapted.kept` ({place: what}). general: whether the
    function takes dilation and groups. patch: see cuda.redirect.
    """

    def made(called: str) -> Callable[[Callable], Callable]:
        form, dims, transposed = FUNCTIONS[called]
        signature = TRANSPOSED if transposed else PLAIN

        def make(original: Callable) -> Callable:
            def convolution(*args, **kwargs):
                path = adapted.running.path
                if path is None or getattr(_thread, "busy", False):
                    return original(*args, **kwargs)
                given = signature.bind(*args, **kwargs)
                given.apply_defaults()
                call = given.arguments
                x: Tensor = call["input"]
                if x.device != adapted.device:
                    return original(*args, **kwargs)
                call = settled(call, dims)
                place = ": ".join(filter(None, (path, f"F.{called}")))
                where = f"{name} as F.{called}, at {call_site()}"
                if not general and (call["groups"] != 1 or set(call["dilation"]) != {1}):
                    adapted.kept[place] = "groups and dilation are not supported by this implementation"
                    return original(*args, **kwargs)
                adapted.functional[place] = where
                out = form(function, *call.values())
                return in_the_form_of_torch(out, x)

            return convolution

        return make

    def kept(called: str, why: str) -> Callable[[Callable], Callable]:
        def make(original: Callable) -> Callable:
            def convolution(*args, **kwargs):
                path = adapted.running.path
                if path is not None and not getattr(_thread, "busy", False):
                    adapted.kept[": ".join(filter(None, (path, f"F.{called}")))] = why
                return original(*args, **kwargs)

            return convolution

        return make

    for called in FUNCTIONS:
        for owner in (F, torch):
            patch(owner, called, made(called))
    volumes = "a transposed convolution of volumes is not supported; torch's own kernel is kept"
    for owner in (F, torch):
        patch(owner, "conv_transpose3d", kept("conv_transpose3d", volumes))


def settled(call: dict, dims: int) -> dict:
    """The arguments with one number per dimension; padding "same" becomes zeros around the input."""
    call = dict(call)
    for name in ("stride", "dilation", "output_padding"):
        if name in call:
            call[name] = _numbers(call[name], dims)
    padding = call["padding"]
    if padding == "same":
        spans = [d * (k - 1) for d, k in zip(call["dilation"], call["weight"].shape[2:], strict=True)]
        around = [n for span in reversed(spans) for n in (span // 2, span - span // 2)]
        call["input"], padding = F.pad(call["input"], around), 0
    call["padding"] = _numbers(0 if padding == "valid" else padding, dims)
    return call


def _numbers(value, dims: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * dims
    return tuple(value) * (dims if len(value) == 1 else 1)
