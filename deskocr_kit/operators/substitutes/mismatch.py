"""The error for arguments that do not fit each other."""

from __future__ import annotations

import torch
from torch import Tensor


class Mismatch(ValueError, RuntimeError):
    """Arguments do not fit each other.

    It is a RuntimeError, because torch's own operators raise that, and a ValueError, because the values are
    wrong: callers may catch either.
    """


def same_dtype(who: str, **tensors: Tensor | None) -> None:
    """Raise Mismatch unless all tensors share one dtype. Under autocast, which casts by itself, all pass."""
    given = {name: each for name, each in tensors.items() if each is not None}
    if len({each.dtype for each in given.values()}) <= 1:
        return
    if torch.is_autocast_enabled(next(iter(given.values())).device.type):
        return
    listed = ", ".join(f"{name} {str(each.dtype).removeprefix('torch.')}" for name, each in given.items())
    raise Mismatch(f"{who}: one dtype is needed, got {listed}; cast before the call")


def same_device(who: str, **tensors: Tensor | None) -> None:
    """Raise Mismatch unless all tensors are on one device."""
    given = {name: each for name, each in tensors.items() if each is not None}
    if len({each.device for each in given.values()}) > 1:
        listed = ", ".join(f"{name} on {each.device}" for name, each in given.items())
        raise Mismatch(f"{who}: one device is needed, got {listed}; move them together before the call")
