"""Generated plan files: read or refused with PlanError; what is read can be printed and compared."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deskocr_kit.operators.plan import Plan, PlanError
from tests.helpers.weight_folders import NOT_JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
CASES = st.dictionaries(
    st.sampled_from(["*", "k"]), st.fixed_dictionaries({"use": st.sampled_from(["reference", "x"])}) | JSON
)
CHOICES = st.dictionaries(
    st.sampled_from(["float32", "float16"]),
    st.dictionaries(st.sampled_from(["conv2d", "moe", "no"]), CASES) | JSON,
)
PLAN = st.fixed_dictionaries(
    {
        "format": st.sampled_from([1, 1, 1, 2, None, [1]]),
        "fingerprint": st.dictionaries(st.text(max_size=5), st.text(max_size=5) | JSON, max_size=3) | JSON,
        "choices": CHOICES | JSON,
        "about": st.dictionaries(st.text(max_size=5), JSON, max_size=2) | JSON,
    }
)


def read(path):
    try:
        return Plan.load(path)
    except PlanError as error:
        assert str(path) in str(error) and all(line.isprintable() for line in str(error).splitlines())
        return None


@pytest.mark.fuzz
@given(PLAN)
@example(
    {
        "format": 1,
        "fingerprint": {},
        "choices": {"float32": {"conv2d": {"*": {"use": "reference"}}}},
        "about": {},
    }
)
def test_any_plan_is_read_or_refused(tmp_path_factory, stored):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(stored), encoding="utf-8")
    plan = read(path)
    if plan is not None:
        repr(plan), plan.differences({"torch": "2"})
        for dtype in plan.choices:
            with contextlib.suppress(PlanError):
                assert all(callable(each) for each in plan.functions(dtype).values())


@pytest.mark.parametrize("text", NOT_JSON)
def test_json_that_is_none_is_refused(text, tmp_path):
    content = NOT_JSON[text]
    (tmp_path / "plan.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read(tmp_path / "plan.json") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFO in a folder")
def test_a_fifo_and_a_device_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.json")
    for path in (tmp_path / "fifo.json", "/dev/zero", tmp_path):
        with pytest.raises(PlanError, match="not a regular file"):
            Plan.load(path)
