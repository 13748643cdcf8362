"""Which operators of PyTorch a kernel computes: families of work, as data."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

DATA = Path(__file__).parents[1] / "ascend" / "data" / "kernel_families.json"


@functools.cache
def _table() -> tuple[dict[str, str], dict[str, str]]:
    """({operator: family}, {type of kernel, lower case: family})."""
    families = json.loads(DATA.read_text(encoding="utf-8"))["families"]
    operators = {name: family for family, each in families.items() for name in each["operators"]}
    types = {name.lower(): family for family, each in families.items() for name in each["types"]}
    return operators, types


def family_of_operator(name: str) -> str:
    """ "aten::add_.Tensor" -> "add"; an operator without a family is its own."""
    plain = name.partition("::")[2] or name
    plain = plain.partition(".")[0]
    known = _table()[0]
    return known.get(plain) or known.get(plain.rstrip("_")) or plain.rstrip("_")


def family_of_type(kind: str) -> str | None:
    """ "MatMulV2" -> "matrix product", "aten::mm" too; None for a type that is not attributed."""
    if "::" in kind:
        return family_of_operator(kind)
    plain = re.sub(r"v\d+$", "", kind.lower())
    types = _table()[1]
    return types.get(kind.lower()) or types.get(plain)
