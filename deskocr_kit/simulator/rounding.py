"""fp16 as on an accelerator: each operator computes in fp32 and rounds its result to fp16.

A CPU without fp16 arithmetic is slow in fp16 and also rounds inside the operator. Computing in fp32 and
rounding once per operator is several times faster, and closer to a matrix unit with an fp32 accumulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..ascend.operator_facts import MOVES


def moves_data(operator: str) -> bool:
    """Whether `operator` ("aten::name.overload") is exact in fp16, without a conversion to fp32."""
    return operator[6:].partition(".")[0].rstrip("_") in MOVES or operator == "aten::_to_copy"


def rounded_call(call, args: Sequence, kwargs: dict, writes: tuple) -> Any:
    """`call(*args, **kwargs)` on CPU tensors, with fp16 converted to fp32 and the results rounded to fp16.

    writes: the arguments that the operator writes to, as (position, name); they are rounded back in place.
    Some calls are not changed: those without an fp16 tensor, those that mix fp16 with another floating dtype
    (type promotion decides the result), and those that request another result dtype.
    """
    half = torch.float16
    seen = mixed = False
    asked = None

    def raised(value):
        nonlocal seen, mixed, asked
        if isinstance(value, torch.Tensor):
            if value.dtype is half:
                seen = True
                return value.float()
            mixed = mixed or value.is_floating_point() or value.is_complex()
        elif type(value) is list:
            return [raised(x) for x in value]
        elif type(value) is torch.dtype:
            asked = value
            return torch.float32 if value is half else value
        return value

    new_args = [raised(a) for a in args]
    new_kwargs = {k: raised(v) for k, v in kwargs.items()}
    if not seen or mixed or (asked is not None and asked is not half and not writes):
        return call(*args, **kwargs)
    result = call(*new_args, **new_kwargs)
    for position, name in writes:
        old, new = (
            (args[position], new_args[position]) if position < len(args) else (kwargs[name], new_kwargs[name])
        )
        for x, y in zip(old, new, strict=True) if type(old) is list else [(old, new)]:
            if x is not y:
                x.copy_(y)

    def lowered(value):
        if isinstance(value, torch.Tensor):
            return value.to(half) if value.dtype is torch.float32 else value
        return type(value)(lowered(x) for x in value) if type(value) in (list, tuple) else value

    return lowered(result)
