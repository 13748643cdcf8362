"""Run the convolutions of any model by a candidate of the slot conv2d.

Weights, names, hooks and settings of a layer stay: only the function that it calls is replaced, so half(),
train() and gradients work as before. A copy of a patched layer (deepcopy, pickle) stays patched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..substitutes import conv_other
from .patching import Patch

PLAIN: dict[type[_ConvNd], Callable[..., Tensor]] = {
    nn.Conv1d: conv_other.conv1d,
    nn.Conv2d: conv_other.conv2d,
    nn.Conv3d: conv_other.conv3d,
}
TRANSPOSED: dict[type[_ConvNd], Callable[..., Tensor] | None] = {
    nn.ConvTranspose1d: conv_other.conv_transpose1d,
    nn.ConvTranspose2d: conv_other.conv_transpose2d,
    nn.ConvTranspose3d: None,
}


def takes_any(function: Callable) -> bool:
    """Whether a function for the slot conv2d takes dilation and groups."""
    takes = inspect.signature(function).parameters
    return {"dilation", "groups"} <= takes.keys() or any(p.kind is p.VAR_KEYWORD for p in takes.values())


def patch_convolutions(module: nn.Module, function: Callable, name: str, general: bool):
    """Patch a module's convolutions: ({path: new function}, {path: why not patched}, patches to undo)."""
    patched: dict[str, str] = {}
    left: dict[str, str] = {}
    patches: list[Patch] = []
    for path, layer in module.named_modules():
        kind = next((kind for kind in (*PLAIN, *TRANSPOSED) if isinstance(layer, kind)), None)
        if kind is None or not isinstance(layer, _ConvNd):
            continue
        if why := _why_not(layer, kind, general):
            left[path] = why
            continue
        if isinstance(layer, _ConvTransposeNd):
            patches.append(Patch(layer, "forward", _instead(Transposed(layer, function))))
        else:
            patches.append(Patch(layer, "_conv_forward", _instead(Plain(layer, function))))
        kind_note = "" if kind is nn.Conv2d else f" as {kind.__name__}"
        patched[path] = f"{name}{kind_note}, {layer.extra_repr()}"
    return patched, left, patches


def _instead(made: Callable) -> Callable[[Callable], Callable]:
    return lambda below: made


def _why_not(layer: _ConvNd, kind: type, general: bool) -> str:
    special = [f"groups={layer.groups}"] if layer.groups != 1 else []
    special += [f"dilation={layer.dilation}"] if set(layer.dilation) != {1} else []
    if kind is nn.ConvTranspose3d:
        return "a transposed convolution of volumes is not supported; torch's own kernel is kept"
    if special and not general:
        return f"{' and '.join(special)} is not supported by this implementation"
    for name in ("forward", "_conv_forward"):
        if getattr(type(layer), name) is not getattr(kind, name):
            return f"{type(layer).__name__} defines its own {name}"
    return ""


def compiled(module: nn.Module) -> dict[str, str]:
    """{path: reason} of the TorchScript parts that contain a convolution: Python cannot replace anything in
    them.
    """
    found: dict[str, str] = {}
    for path, part in module.named_modules():
        inside = any(path == above or path.startswith(f"{above}.") or not above for above in found)
        if isinstance(part, torch.jit.ScriptModule) and not inside and _has_convolution(part):
            found[path] = "TorchScript, whose operators cannot be exchanged: load the model's Python code"
    return found


def _has_convolution(part: torch.jit.ScriptModule) -> bool:
    try:
        return "conv" in str(part.inlined_graph)
    except (AttributeError, RuntimeError):  # a scripted container without a forward
        return False


def in_the_form_of_torch(out: Tensor, x: Tensor) -> Tensor:
    """`out` contiguous, as torch's convolution of x: the model's code may call .view on it.

    For x in channels_last torch's result is so too, and `out` is left as it is.
    """
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = x.dim() in forms and x.is_contiguous(memory_format=forms[x.dim()])
    return out if last and not x.is_contiguous() else out.contiguous()


class Plain:
    """Replaces a layer's `_conv_forward`. It is a class, so that the layer can be pickled."""

    def __init__(self, layer: _ConvNd, function: Callable):
        self.layer, self.function = layer, function

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        layer, padding, given = self.layer, self.layer.padding, x
        if layer.padding_mode != "zeros" or padding == "same":
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            x, padding = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode), "valid"
        if padding == "valid":
            padding = (0,) * len(layer.kernel_size)
        run = next(run for kind, run in PLAIN.items() if isinstance(layer, kind))
        out = run(self.function, x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)
        return in_the_form_of_torch(out, given)


class Transposed:
    """Replaces the `forward` of a transposed layer."""

    def __init__(self, layer: _ConvTransposeNd, function: Callable):
        self.layer, self.function = layer, function

    def __call__(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        layer, numbers = self.layer, len(self.layer.kernel_size)
        sizes = layer.stride, layer.padding, layer.kernel_size, numbers, layer.dilation
        # torch names lists here, for TorchScript, and passes its tuples.
        more = layer._output_padding(input, output_size, *sizes)  # type: ignore[arg-type]
        run = next(run for kind, run in TRANSPOSED.items() if isinstance(layer, kind))
        assert run is not None  # `_why_not` leaves ConvTranspose3d with torch
        out = run(
            self.function, input, layer.weight, layer.bias, layer.stride, layer.padding, more, layer.groups,
            layer.dilation,
        )  # fmt: skip
        return in_the_form_of_torch(out, input)
