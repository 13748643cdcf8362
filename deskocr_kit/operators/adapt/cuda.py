"""Redirect code that names CUDA to the device of a module: .cuda(), .to("cuda"), zeros(…, device="cuda").

A model written for one NVIDIA card has such lines in its forward, and no argument changes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn as nn
from torch.utils._device import _device_constructors

LIKE = "empty_like ones_like zeros_like full_like rand_like randn_like randint_like".split()
NEW = "new_empty new_full new_ones new_tensor new_zeros new_empty_strided".split()


def factories() -> Iterator[tuple[object, str]]:
    """(owner, name) of the functions that make a tensor and take `device=`."""
    names = {function.__name__ for function in _device_constructors()}
    yield from ((torch, name) for name in sorted({*names, *LIKE}) if hasattr(torch, name))
    yield from ((torch.Tensor, name) for name in NEW)


def redirect(adapted, patch: Callable) -> None:
    """Patch torch so that CUDA means `adapted.device`; counts the calls in `adapted.redirected`.

    patch: called as patch(owner, name, make), where make(original) returns the replacement.
    """

    def cuda(original: Callable) -> Callable:
        def to_our_device(self, device=None, non_blocking=False, **rest):
            adapted.redirected += 1
            if isinstance(self, nn.Module):
                return self.to(adapted.device)
            return self.to(adapted.device, non_blocking=non_blocking)

        return to_our_device

    def to(original: Callable) -> Callable:
        def to_our_device(self, *args, **kwargs):
            if args and is_cuda(args[0]):
                args = (adapted.device, *args[1:])
                adapted.redirected += 1
            elif is_cuda(kwargs.get("device")):
                kwargs["device"] = adapted.device
                adapted.redirected += 1
            return original(self, *args, **kwargs)

        return to_our_device

    def factory(original: Callable) -> Callable:
        @functools.wraps(original)
        def on_our_device(*args, **kwargs):
            if is_cuda(kwargs.get("device")):
                kwargs["device"] = adapted.device
                adapted.redirected += 1
            return original(*args, **kwargs)

        return on_our_device

    for owner in (torch.Tensor, nn.Module):
        patch(owner, "cuda", cuda)
        patch(owner, "to", to)
    for module, name in factories():
        patch(module, name, factory)


def is_cuda(device) -> bool:
    """Whether `device`, a torch.device or its name, is a CUDA device."""
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return isinstance(device, str) and device.partition(":")[0] == "cuda"
