"""No regular expression takes more than linear time on any text made of repeats of its own parts."""

from __future__ import annotations

import os
import re

import pytest

from deskocr_kit.ascend import codes, errors, versions
from tests.helpers.imports import modules
from tests.helpers.regular_expressions import Expression, collected, slow_text

MORE = 8 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 1  # `make fuzz` tries more texts
pytestmark = pytest.mark.fuzz


def of_the_tables() -> list[Expression]:
    """Expressions that stand in data files."""
    tests = [test for _, tests in errors._tests() for test in tests]
    patterns = [form for test in tests for form in (test.strict, test.loose)]
    patterns += [re.compile(family["titles"]) for family in codes.tables()["families"]]
    patterns += [re.compile(chip["pattern"], re.I) for chip in versions.tables()["chips"]]
    return [Expression("data", each.pattern, each.flags, False) for each in patterns]


def slow(expressions: list[Expression], most: int) -> list[str]:
    out = []
    for each in expressions:
        if found := slow_text(each, most * MORE):
            part, size, seconds = found
            out.append(f"{each.where}: {each.pattern!r}: {seconds:.2f} s for {size} characters of {part!r}")
    return out


def test_the_expressions_of_the_code_are_linear():
    expressions = collected(modules())
    assert len(expressions) > 60
    assert slow(expressions, most=30) == []


def test_the_expressions_of_the_tables_are_linear():
    assert slow(of_the_tables(), most=10) == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s*$",
        r"^\s*([A-Za-z][\w ()%/.-]*?)\s*:(?:\s+(.*?))?\s*$",
        r"torch[-_]npu\S* \S* ?depends on torch",
        r"\x1b\][^\x07]*\x07",
        r"(a+)+b",
        r"(?:\w+\s?)*;",
    ],
)
def test_the_harness_finds_those_that_are_not(pattern):
    assert slow_text(Expression("here", pattern, 0, False))
