"""The rule for unusual calls: a candidate returns the result of the reference or declines with a message."""

from __future__ import annotations

import torch

from deskocr_kit.operators.substitutes.mismatch import Mismatch
from deskocr_kit.operators.substitutes.registry import candidates

DECLINES = (Mismatch, ValueError, NotImplementedError, TypeError)  # a bare RuntimeError is no message


def portable(slot: str) -> list[str]:
    """The portable candidates without the reference, except those whose operator this torch lacks."""
    absent = set() if hasattr(torch, "_grouped_mm") else {"grouped_mm"}
    return [n for n in candidates(slot) if n != "reference" and not n.startswith("npu_") and n not in absent]


def outcome(function, args, kwargs=None):
    """The outcome of a call: its result or its exception."""
    try:
        return function(*args, **(kwargs or {}))
    except Exception as error:
        return error


def tolerance(dtype: torch.dtype) -> dict:
    loose = {torch.float16: 2e-2, torch.bfloat16: 4e-2}.get(dtype, 1e-4)
    return {"rtol": loose, "atol": loose / 4, "equal_nan": True}


def hold_to_the_rule(slot: str, name: str, args: tuple, expected=None) -> None:
    """Fail unless the candidate follows the rule and does not change its arguments."""
    found = candidates(slot)
    expected = outcome(found["reference"], args) if expected is None else expected
    before = [a.clone() if torch.is_tensor(a) else a for a in args]
    ours = outcome(found[name], args)
    if isinstance(ours, Exception):
        assert isinstance(ours, (*DECLINES, RuntimeError, IndexError)), repr(ours)
        if not isinstance(expected, Exception):  # it declines what the reference accepts
            assert isinstance(ours, DECLINES) and (slot in str(ours) or name in str(ours)), repr(ours)
        return
    assert not isinstance(expected, Exception), f"gives {tuple(ours.shape)} where torch raises: {expected}"
    assert (ours.shape, ours.dtype, ours.device) == (expected.shape, expected.dtype, expected.device)
    if not ours.is_meta:
        torch.testing.assert_close(ours, expected, **tolerance(ours.dtype))
        for a, b in zip(args, before, strict=True):
            if torch.is_tensor(a):
                torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
            else:
                assert a is b


def gradients(function, args, kwargs=None) -> list:
    """Gradients of the sum of squares for every floating-point argument."""
    own = [
        a.detach().clone().requires_grad_() if torch.is_tensor(a) and a.is_floating_point() else a
        for a in args
    ]
    leaves = [a for a in own if torch.is_tensor(a) and a.requires_grad]
    loss = function(*own, **(kwargs or {})).float().square().sum()
    return list(torch.autograd.grad(loss, leaves, allow_unused=True)) if loss.requires_grad else []
