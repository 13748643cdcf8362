"""Assumptions of a dry run (meta or fake tensors) about results that depend on values.

Examples are the experts that tokens are routed to, the number of masked places, and the next token: a real
run reads them back from the device. A dry run gets these numbers as assumptions, runs the same code, and
lists the assumptions that it used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Count = int | Callable[[Tensor], int] | None
Number = float | Callable[[Tensor], float] | None


class DryRunError(RuntimeError):
    """A dry run needs a value that it does not have; the message names the operator and the remedy."""


@dataclass
class Assume:
    """The assumed results. Each is a number, or a function of the operator's tensor that returns one.

    distinct: of a `unique`; rows: of a `nonzero` or a bool-mask index; scalar: of an `item()`; sizes: the sum
    of a vector of integers that is read back, spread evenly (the number of rows of each expert).
    """

    distinct: Count = None
    rows: Count = None
    scalar: Number = None
    sizes: Count = None
    used: set[str] = field(default_factory=set)
    _distinct: list[Tensor] = field(default_factory=list, repr=False)

    @staticmethod
    def answer(assume: Assume | None, name: str, args: tuple, kwargs: dict) -> tuple[bool, object]:
        """(answered, output) for an operator on meta or fake tensors; (False, None) if it can run."""
        if not args or not isinstance(args[0], Tensor):
            return False, None
        first = args[0]
        if name == "aten::_local_scalar_dense":
            value = _need(assume, "scalar", name, first)
            if first.dtype == torch.bool:
                return True, bool(value)
            return True, float(value) if first.is_floating_point() else int(value)
        if name == "aten::nonzero":
            rows = _need(assume, "rows", name, first)
            return True, torch.empty(rows, first.dim(), dtype=torch.int64, device=first.device)
        if name in ("aten::_unique2", "aten::_unique"):
            made = torch.empty(_need(assume, "distinct", name, first), dtype=first.dtype, device=first.device)
            assert assume is not None  # otherwise `_need` raises
            assume._distinct.append(made)
            empty = torch.empty(0, dtype=torch.int64, device=first.device)
            return True, (made, empty, empty)
        if name == "aten::index.Tensor" and len(args[1]) == 1 and args[1][0].dtype == torch.bool:
            rows = _need(assume, "rows", name, args[1][0])
            return True, torch.empty(
                rows, *first.shape[args[1][0].dim() :], dtype=first.dtype, device=first.device
            )
        if name == "aten::_to_copy" and first.is_meta and str(kwargs.get("device")) == "cpu":
            # The values are placeholders; distinct ones must differ, and a selected token must be finite.
            known = assume is not None and any(first is made for made in assume._distinct)
            dtype = kwargs.get("dtype") or first.dtype
            counts = first.dim() == 1 and not first.dtype.is_floating_point and not known
            if counts and len(first) > 1 and getattr(assume, "sizes", None) is not None:
                each, left = divmod(_need(assume, "sizes", name, first), len(first))
                return True, each + (torch.arange(len(first)) < left).to(dtype)
            return True, torch.arange(len(first), dtype=dtype) if known else torch.ones(
                first.shape, dtype=dtype
            )
        return False, None


def _need(assume: Assume | None, what: str, name: str, tensor: Tensor):
    value = getattr(assume, what, None)
    if callable(value):
        value = value(tensor)
    if assume is None or value is None:
        raise DryRunError(
            f"{name} needs values, and a dry run has none. Run the census on real tensors, or pass "
            f"Assume({what}=…) with the number to expect."
        )
    shape = list(tensor.shape)
    assume.used.add(
        f"{name.removeprefix('aten::')} of {tensor.dtype}{shape}".replace("torch.", "") + f" gives {value}"
    )
    return value


@contextlib.contextmanager
def patched_for_meta():
    """`torch.autocast("meta", enabled=False)` raises; models need it to switch autocast off."""
    original = torch.autocast

    def autocast(device_type, *args, **kwargs):
        return original("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    torch.autocast = autocast  # type: ignore[assignment,misc]  # a function takes the place of the class
    try:
        yield
    finally:
        torch.autocast = original  # type: ignore[misc]
