"""Kinds of call within a slot: a 1x1 and a 16x16 convolution need different implementations.

`case_of(slot, args)` returns the kind of a call. A plan chooses an implementation for each kind; `ByCase`
dispatches each call to the chosen one.
"""

from __future__ import annotations

from collections.abc import Callable

ANY = "*"


def _conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> str:
    kernel = "x".join(map(str, weight.shape[-2:]))
    stride, padding, dilation = (_said(n) for n in (stride, padding, dilation))
    more = (f" dilation {dilation}" if dilation != "1" else "") + (f" groups {groups}" if groups != 1 else "")
    return f"kernel {kernel} stride {stride} padding {padding}{more}"


def _said(number) -> str:
    """2, (2,), [2, 2] are all "2": they are the same kind of call."""
    if not isinstance(number, (tuple, list)):
        return str(number)
    return "x".join(map(str, number)) if len(set(number)) > 1 else str(number[0])


def _attention(q, k, v, mask=None, causal=False) -> str:
    kind = "one query" if q.shape[-2] == 1 else "causal" if causal else "full"
    return kind if mask is None else f"{kind}, masked"


def _rel_pos_attention(q, k, v, rel_h, rel_w) -> str:
    return "window" if rel_h.shape[0] <= 16 else "whole map"


def _sam_attention(qkv, bias, rel_h, rel_w, heads, window) -> str:
    return "window" if window else "whole map"


def _moe(x, *_) -> str:
    return "one token" if len(x) == 1 else "few tokens" if len(x) <= 8 else "many tokens"


_CASES: dict[str, Callable[..., str]] = {
    "conv2d": _conv2d,
    "attention": _attention,
    "rel_pos_attention": _rel_pos_attention,
    "sam_attention": _sam_attention,
    "moe": _moe,
}


def case_of(slot: str, args: tuple, kwargs: dict | None = None) -> str:
    """The kind of a call; "*" for slots that have only one kind."""
    return _CASES[slot](*args, **(kwargs or {})) if slot in _CASES else ANY


class ByCase:
    """A slot's function that passes each call to the implementation chosen for its kind.

    `names` {case: name} is the content of a plan, `functions` {case: function} the functions of these names.
    The case "*" stands for all cases that are not listed. Raises ValueError if it is missing.
    """

    def __init__(self, slot: str, names: dict[str, str], functions: dict[str, Callable]):
        if ANY not in functions:
            raise ValueError(f"{slot}: the choice for any other case ({ANY!r}) is missing")
        self.slot, self.names, self.functions = slot, names, functions
        if slot == "moe":  # decoding uses the weights prepared for one token, see model.slots.Operator
            self.prepare = getattr(functions.get("one token", functions[ANY]), "prepare", None)

    def __call__(self, *args, **kwargs):
        case = case_of(self.slot, args, kwargs)
        return self.functions.get(case, self.functions[ANY])(*args, **kwargs)

    def __repr__(self) -> str:
        return f"{self.slot}: " + ", ".join(f"{case}: {name}" for case, name in self.names.items())
