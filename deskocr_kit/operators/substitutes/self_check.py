"""Check fused operators on the card they run on: the first result of each kind of call is compared.

Known faults of fused attention on NPUs are silent: a mask that is ignored past 512 keys, a uniform average
instead of attention, a gelu with the wrong formula. Therefore the first call on a device, for each dtype and
each doubling of a size, is repeated by the reference in fp32 on the host. If the error of a result exceeds
its tolerance, the result is dropped, the reference is used from then on, and a warning names the operator.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from model.slots import Operator

from ...device.dtypes import dtype_name
from ...device.tolerances import TOLERANCES, relative_error

STRICT = "DESKOCR_STRICT"  # "1": a failed check is an error instead of a fallback


class NeedsTorchNpu(RuntimeError):
    """An operator of torch_npu was requested, but it is not available."""


class SelfCheckError(RuntimeError):
    """A fused operator returned a wrong result on this device (only with DESKOCR_STRICT=1)."""


class SelfCheckWarning(UserWarning):
    """A fused operator returned a wrong result, or failed; the reference is used instead."""


def _missing(*args, **kwargs):
    raise TypeError("SelfChecked(…): reference is missing")


@dataclass(frozen=True, eq=False)
class SelfChecked(Operator):
    """An operator whose first result of each kind of call is compared with `reference`."""

    reference: Callable = _missing
    verdicts: dict[tuple, str] = field(default_factory=dict)  # kind of call -> "" if correct, else the fault

    def __call__(self, *args, **kwargs):
        kind, verdicts = kind_of(args, kwargs), self.verdicts
        if kind is None:  # only shapes are computed, or a graph is recorded: there is nothing to compare
            return self.function(*args, **kwargs)
        if kind not in verdicts:
            result, verdicts[kind] = _judge(self.function, self.reference, args, kwargs)
            if not verdicts[kind]:
                return result
            _report(self.name, verdicts[kind], args)
        return (self.reference if verdicts[kind] else self.function)(*args, **kwargs)

    @property
    def unchecked(self) -> Callable:
        return self.function


def self_checked(fused: Callable, reference: Callable, name: str) -> SelfChecked:
    """`fused` with the name `name`, checked as this module describes."""
    supports, prepare = getattr(fused, "supports", None), getattr(fused, "prepare", None)
    return SelfChecked(fused, supports, prepare, name, reference)


def kind_of(args: tuple, kwargs: dict) -> tuple | None:
    """Calls of one kind share a verdict: device, dtypes, and sizes up to the next power of two."""
    parts: list[object] = []
    for each in (*args, *kwargs.values()):
        if isinstance(each, FakeTensor) or (isinstance(each, Tensor) and each.is_meta):
            return None
        if isinstance(each, Tensor):
            parts.append((str(each.device), each.dtype, *(n.bit_length() for n in each.shape)))
        elif each is None or isinstance(each, bool):
            parts.append(each)
    return None if torch.compiler.is_compiling() else tuple(parts)


def _judge(fused: Callable, reference: Callable, args: tuple, kwargs: dict) -> tuple[Tensor | None, str]:
    try:
        result = fused(*args, **kwargs)
    except NeedsTorchNpu:
        raise
    except Exception as error:
        return None, f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    expected = reference(*map(_on_host, args), **{k: _on_host(v) for k, v in kwargs.items()})
    if result.shape != expected.shape:
        return result, f"returned shape {tuple(result.shape)} instead of {tuple(expected.shape)}"
    away = relative_error(result, expected)
    found = TOLERANCES.get(dtype_name(result.dtype))
    bound = found.operator if found else 0.0
    return result, "" if away <= bound else f"has a relative error of {away:.1e}, bound {bound:g}"


def _on_host(value):
    if not isinstance(value, Tensor):
        return value
    return value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()


def _report(name: str, what: str, args: tuple) -> None:
    shapes = ", ".join(f"{tuple(a.shape)} {a.dtype}" for a in args if isinstance(a, Tensor))
    device = next((str(a.device) for a in args if isinstance(a, Tensor)), "?")
    text = f"{name} {what} on {device} for {shapes}"
    if os.environ.get(STRICT) == "1":
        raise SelfCheckError(text)
    warnings.warn(
        f"{text}. The reference is used instead from now on; `deskocr prove` checks every operator; "
        f"{STRICT}=1 makes this an error.",
        SelfCheckWarning,
        stacklevel=4,
    )
