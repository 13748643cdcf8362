"""Dtypes that the CPU's kernel lacks and the NPU has: compute in a wider dtype and cast back.

The simulated NPU has the CPU's kernels. Where one refuses a dtype ("not implemented for 'BFloat16'"), a
published wheel has a kernel of its own, and the dtype is one that an NPU computes with, the call is repeated
in a wider dtype and its results are cast back. In all other cases the CPU's error stays: an operator without
a kernel in the wheels falls back to the host, which refuses the dtype as well.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from ..ascend.dispatch import dispatch_table, wheel_versions
from ..ascend.operator_facts import WHOLE_NUMBERS

Tensor = torch.Tensor
_HALVES = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
#: float64 holds every integer of 32 bits; an int64 beyond 2**53 would lose its last bits.
_INTEGERS = dict.fromkeys((torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64), torch.float64)


@functools.cache
def _wider(name: str) -> dict[torch.dtype, torch.dtype]:
    """{dtype: the dtype to compute in} of an operator; empty for one without a kernel in the wheels."""
    if not any(
        dispatch_table(version).get(name, {}).get("PrivateUse1") == "1" for version in wheel_versions()
    ):
        return {}
    return _HALVES | _INTEGERS if name in WHOLE_NUMBERS else _HALVES


def widened_call(error: RuntimeError, name: str, call, writes: tuple, /, *args, **kwargs) -> Any:
    """`call(*args, **kwargs)` on CPU tensors, repeated after `error` in a wider dtype.

    The lacking dtype is that of the first tensor with a wider one. Tensors of other dtypes, such as indices,
    do not change. writes: the arguments that the operator writes to, as (position, name). Raises `error` if
    it is not about a dtype, or if no dtype of the arguments may be widened.
    """
    if "not implemented for" not in str(error):
        raise error
    wider = _wider(name)
    low = next((t.dtype for t in _tensors((args, kwargs)) if t.dtype in wider), None)
    if low is None:
        raise error

    def change(value, before: torch.dtype, after: torch.dtype):
        if isinstance(value, Tensor):
            return value.to(after) if value.dtype is before else value
        if type(value) is torch.dtype:
            return after if value is before else value
        if type(value) in (list, tuple):
            return type(value)(change(each, before, after) for each in value)
        return value

    wide = wider[low]
    new_args = [change(each, low, wide) for each in args]
    new_kwargs = {key: change(value, low, wide) for key, value in kwargs.items()}
    try:
        result = call(*new_args, **new_kwargs)
    except RuntimeError as again:
        raise (error if "not implemented for" in str(again) else again) from None
    for position, key in writes:
        given, made = (args, new_args) if position < len(args) else (kwargs, new_kwargs)
        where = position if position < len(args) else key
        if given[where] is not made[where]:
            if given[where].shape != made[where].shape:
                given[where].resize_(made[where].shape)  # an `out=`, which kernels._call_out can replace
            given[where].copy_(made[where])
    return change(result, wide, low)


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif type(value) in (list, tuple):
        for each in value:
            yield from _tensors(each)
    elif type(value) is dict:
        yield from _tensors(list(value.values()))
