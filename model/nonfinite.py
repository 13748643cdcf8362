"""NaN and Inf: stop, and name the layer that produced them first."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor


class NonFiniteError(FloatingPointError):
    """The logits are NaN or Inf."""


def finite(value) -> bool:
    """True unless a floating tensor in `value` (a tensor, or tuples and lists of them) holds NaN or Inf."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(torch.isfinite(value).all())
    return all(finite(item) for item in value) if isinstance(value, (tuple, list)) else True


def first_nonfinite(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The name of the innermost module with the first NaN or Inf output during `run()`, or None."""
    found: list[str] = []

    def watch(name: str):
        def hook(module, args, output):
            if not found and not finite(output):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def explain_nonfinite(model: nn.Module, run: Callable[[], object], dtype: torch.dtype) -> NonFiniteError:
    """The error to raise if the logits of `run()` are NaN or Inf."""
    broken = [name for name, p in model.named_parameters() if p.is_floating_point() and not finite(p)]
    where = first_nonfinite(model, run)
    if broken:
        what = f"the weights of {broken[0]} hold NaN or Inf. Load the checkpoint again; verify its files."
    elif where is None:
        what = (
            "a second pass was finite: the first one read memory that was not ready, or the device is faulty."
        )
    else:
        what = f"first produced by {where}. In {str(dtype).removeprefix('torch.')} values beyond "
        what += f"{torch.finfo(dtype).max:.0f} overflow: keep this layer in fp32, or run in bfloat16."
    return NonFiniteError(f"logits are NaN or Inf: {what}")
