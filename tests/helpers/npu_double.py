"""A replacement for torch_npu on the CPU, for code that needs an NPU.

Each operator first binds its call to the schemas of the oldest and the newest published wheel in tests/data,
as torch itself does: too many arguments, an unknown keyword and a number for a tensor are errors. Then it
computes the same as the operators of the simulator (simulator/fused_operators.py), with their pitfalls.
"""

from __future__ import annotations

import contextlib
import sys
import types

import torch

from deskocr_kit.simulator import fused_operators
from tests.helpers.paths import ASCEND

WHEELS = ("2.6.0.post5", "2.13.0")
called: list[str] = []


def schemas(version: str) -> dict[str, list[torch._C.FunctionSchema]]:
    """{operator: its overloads} in one wheel."""
    found: dict[str, list] = {}
    for line in (ASCEND / f"npu_op_schemas_torch_npu_{version}.txt").read_text().splitlines():
        if line.startswith("npu::"):
            name = line.partition("(")[0].removeprefix("npu::").partition(".")[0]
            found.setdefault(name, []).append(line)
    return found


_LINES = {version: schemas(version) for version in WHEELS}


def fits(value, kind: str) -> bool:
    """Whether a Python value is allowed for an argument of this schema type."""
    if kind.startswith("Optional["):
        return value is None or fits(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        return isinstance(value, (list, tuple)) and all(fits(each, kind[len("List[") : -1]) for each in value)
    kinds = {"Tensor": torch.Tensor, "str": str, "bool": bool, "int": int, "float": (int, float)}
    if isinstance(value, bool) and kind != "bool":
        return False
    return kind in kinds and isinstance(value, kinds[kind])


def bind(schema: torch._C.FunctionSchema, args: tuple, kwargs: dict) -> str:
    """ "" if the call fits the schema, else the first mismatch."""
    arguments = list(schema.arguments)
    by_place = [each for each in arguments if not each.kwarg_only]
    if len(args) > len(by_place):
        return f"{len(args)} positional arguments, at most {len(by_place)}"
    given = {each.name: value for each, value in zip(by_place, args, strict=False)}
    if twice := given.keys() & kwargs.keys():
        return f"given twice: {twice}"
    given |= kwargs
    known = {each.name: each for each in arguments}
    for name, value in given.items():
        if name not in known:
            return f"no argument {name!r}"
        if not fits(value, str(known[name].type)):
            return f"{name} wants {known[name].type}, got {type(value).__name__}"
    missing = [each.name for each in arguments if each.name not in given and not each.has_default_value()]
    return f"missing: {missing}" if missing else ""


def check_call(name: str, args: tuple, kwargs: dict) -> None:
    """Raise TypeError unless the call fits one overload in every wheel."""
    for version in WHEELS:
        lines = _LINES[version].get(name, [])
        why = [bind(torch._C.parse_schema(line), args, kwargs) for line in lines]
        if not lines or all(why):
            raise TypeError(f"torch_npu.{name} of {version}: {'; '.join(why) or 'no such operator'}")
    called.append(name)


# ---------------------------------------------------------------------- stricter than the operators
def _require(condition: bool, *what) -> None:
    if not condition:
        raise AssertionError(f"the substitutes promise more than this: {what}")


def npu_rotary_mul(x, *rest):
    _require(x.dim() == 4 and x.is_contiguous(), x.shape, x.stride())
    return fused_operators.npu_rotary_mul(x, *rest)


def npu_swiglu(x, dim=-1):
    _require(x.is_contiguous(), x.shape, x.stride())
    return fused_operators.npu_swiglu(x, dim)


def npu_fusion_attention(q, k, v, head_num, input_layout, **rest):
    _require(
        input_layout == "BNSD" and head_num == q.shape[1] and q.shape[-1] == v.shape[-1], q.shape, v.shape
    )
    return fused_operators.npu_fusion_attention(q, k, v, head_num, input_layout, **rest)


def npu_fused_infer_attention_score(q, k, v, **rest):
    _require(k.is_contiguous() and v.is_contiguous(), k.stride(), v.stride())
    return fused_operators.npu_fused_infer_attention_score(q, k, v, **rest)


STRICT = (npu_rotary_mul, npu_swiglu, npu_fusion_attention, npu_fused_infer_attention_score)
OPERATORS = {f.__name__: f for f in (*fused_operators.OPERATORS, *STRICT)}


@contextlib.contextmanager
def installed(**instead):
    """`import torch_npu` finds the replacement; `instead` replaces operators by name. Yields the module."""
    before = sys.modules.get("torch_npu")
    module = types.ModuleType("torch_npu")
    for name, function in (OPERATORS | instead).items():
        setattr(module, name, _bound(name, function))
    sys.modules["torch_npu"] = module
    called.clear()
    try:
        yield module
    finally:
        if before is None:
            del sys.modules["torch_npu"]
        else:
            sys.modules["torch_npu"] = before


def _bound(name: str, function):
    def operator(*args, **kwargs):
        check_call(name, args, kwargs)
        return function(*args, **kwargs)

    return operator
