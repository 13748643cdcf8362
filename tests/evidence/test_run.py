"""The steps of `deskocr evidence`: time limits, skipping, resuming. The steps here are small stand-ins."""

from __future__ import annotations

import json
import sys
import time

import pytest
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.evidence import run as runs
from deskocr_kit.evidence.run import DONE, FAILED, LATE, SKIPPED, collect
from deskocr_kit.evidence.schema import fault
from deskocr_kit.evidence.steps import STEPS, Setting, Step

FACTS = {"device": {"device": "cpu", "name": "x"}, "label": "cpu", "simulated": False, "checkpoint": "nano",
         "versions": {}, "kit": {}}  # fmt: skip


def step(name: str, code: str, limit: float = 1, accept=(0,)) -> Step:
    return Step(name, "a stand-in", lambda s: [sys.executable, "-c", code], (0, 0), limit, accept)


WRITES = "import os; open('{}', 'a').write('x')"


@pytest.fixture
def setting(tmp_path):
    return Setting("cpu", "nano", tmp_path / "work", "fp32")


def test_each_step_has_an_outcome_and_a_log(setting, monkeypatch, tmp_path):
    child = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', "
        + repr(f"import time; time.sleep(3); open({str(tmp_path / 'orphan')!r}, 'w')")
        + "]); print('waiting', flush=True); time.sleep(60)"
    )
    steps = (
        step("one", "print('fine')"),
        step("two", "print('why'); raise SystemExit(3)"),
        step("three", "raise SystemExit(1)", accept=(0, 1)),
        step("four", child, limit=1 / 60),
        step("five", "print('after')"),
    )
    monkeypatch.setattr(runs, "STEPS", steps)
    said = []
    found = collect(setting, FACTS, skip=("five",), tell=said.append)
    assert [each.status for each in found.values()] == [DONE, FAILED, DONE, LATE, SKIPPED]
    assert found["two"].reason == "exit status 3: why" and "stopped after" in found["four"].reason
    assert found["four"].seconds < 20
    assert (setting.folder / "logs" / "one.txt").read_text() == "fine\n"
    assert (setting.folder / "logs" / "four.txt").read_text() == "waiting\n"
    time.sleep(3.5)
    assert not (tmp_path / "orphan").exists()  # what the step had started was stopped with it
    assert any("two: failed" in line for line in said)


def test_finished_steps_are_not_run_again_unless_something_changed(setting, monkeypatch, tmp_path):
    ran = {name: tmp_path / name for name in ("good", "bad")}
    steps = (
        step("good", WRITES.format(ran["good"])),
        step("bad", WRITES.format(ran["bad"]) + "; raise SystemExit(5)"),
    )
    monkeypatch.setattr(runs, "STEPS", steps)

    def counts():
        return [len(path.read_text()) for path in ran.values()]

    for facts, how, expected in (
        (FACTS, {}, [1, 1]),
        (FACTS, {}, [1, 2]),  # only what failed
        (FACTS, {"fresh": True}, [2, 3]),
        ({**FACTS, "versions": {"torch": "2"}}, {}, [3, 4]),  # other software: everything
    ):
        found = collect(setting, facts, tell=lambda line: None, **how)
        assert counts() == expected and found["good"].status == DONE
    (setting.folder / "state.json").write_text("not JSON")
    collect(setting, FACTS, tell=lambda line: None)
    assert counts() == [4, 5]


def test_the_limit_for_all_steps_skips_what_would_start_too_late(setting, monkeypatch):
    monkeypatch.setattr(runs, "STEPS", (step("one", "print(1)"),))
    found = collect(setting, FACTS, minutes=0.01, tell=lambda line: None)
    assert found["one"].status == SKIPPED and "no time left" in found["one"].reason


def test_a_result_that_cannot_be_used_is_a_failure(setting, monkeypatch):
    monkeypatch.setattr(runs, "STEPS", (step("weights", "print('no JSON')"),))
    found = collect(setting, FACTS, tell=lambda line: None)
    assert found["weights"].status == FAILED and "no JSON" in found["weights"].reason


def test_results_are_taken_from_the_output_of_commands(setting, monkeypatch):
    code = "import json; print('a note'); print(json.dumps({'a': 1}, indent=1)); print('end')"
    lines = "wrote out/00_a.ipynb and .html\\nFAILED notebooks/01_b.ipynb: cell [3]: E: x"
    steps = (
        step("weights", code),
        step("notebooks", f"print('{lines}'); raise SystemExit(2)", accept=(0, 2)),
    )
    monkeypatch.setattr(runs, "STEPS", steps)
    collect(setting, FACTS, tell=lambda line: None)
    assert json.loads((setting.folder / "weights.json").read_text()) == {"a": 1}
    notebooks = json.loads((setting.folder / "notebooks.json").read_text())
    assert notebooks == {"00_a.ipynb": "passed", "01_b.ipynb": "cell [3]: E: x"}


def test_the_steps_of_the_issue_in_order_with_limits_within_the_default():
    names = [each.name for each in STEPS]
    assert names == ["doctor", "weights", "kernels", "prove", "bench", "profile", "claims", "notebooks"]
    assert sum(each.minutes[1] for each in STEPS) <= runs.MINUTES


def test_nobody_is_asked_without_a_terminal_and_nothing_runs(tmp_path):
    out = tmp_path / "work"
    words = ["evidence", "--device", "cpu", "--checkpoint", "nano", "--out", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "--yes" in result.output and "an estimate" in result.output
    assert not out.exists()
    result = CliRunner().invoke(app, [*words, "--skip", "dance"])
    assert result.exit_code == 2 and "no such step" in result.output


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        (1, {"type": "string"}, "expected string"),
        (True, {"type": "number"}, "expected number"),
        (1.0, {"type": "integer"}, None),
        (None, {"type": ["string", "null"]}, None),
        ({"a": 1}, {"required": ["b"]}, "'b' is missing"),
        (
            {"a": {"b": -1}},
            {"properties": {"a": {"properties": {"b": {"minimum": 0}}}}},
            "a.b: expected at least 0",
        ),
        ([1, "x"], {"items": {"type": "number"}}, "1: expected number"),
        ({"c": 1}, {"additionalProperties": False}, "'c' is not expected"),
        (
            {"c": 1},
            {"if": {"properties": {"c": {"const": 1}}}, "then": {"required": ["d"]}},
            "'d' is missing",
        ),
        ({"c": 1}, {"if": {"required": ["d"]}, "else": {"required": ["e"]}}, "'e' is missing"),
        ({"d": 1}, {"if": {"required": ["d"]}, "else": {"required": ["e"]}}, None),
        (3, {"enum": [1, 2]}, "expected one of"),
        (0, {"exclusiveMinimum": 0}, "expected more than"),
        ({"x": 1}, {"$ref": "#/$defs/y", "$defs": {"y": {"type": "array"}}}, "expected array"),
    ],
)
def test_the_part_of_json_schema_that_is_used(value, schema, expected):
    found = fault(value, schema)
    assert found is None if expected is None else expected in found


def test_our_schemas_need_no_other_keyword():
    from jsonschema import Draft202012Validator

    from deskocr_kit.evidence.check import BENCH_SCHEMA, MANIFEST_SCHEMA

    known = set(
        "$schema $defs $ref title description type required properties items enum additionalProperties const "
        "minimum exclusiveMinimum if then else format".split()
    )

    def keywords(schema):
        if isinstance(schema, dict):
            yield from schema
            for key, each in schema.items():
                inner = each.values() if key in ("properties", "$defs") else [each]
                for value in inner:
                    yield from keywords(value)

    for path in (BENCH_SCHEMA, MANIFEST_SCHEMA):
        schema = json.loads(path.read_text())
        Draft202012Validator.check_schema(schema)
        assert set(keywords(schema)) <= known
