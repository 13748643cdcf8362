"""A bench.json of others: read or refused by name, compared with remarks, never a traceback."""

from __future__ import annotations

import copy
import json
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from deskocr_kit.benchmark import report
from deskocr_kit.benchmark.compare import compare_benchmarks, load_benchmark
from deskocr_kit.cli import app
from tests.helpers.paths import ROOT
from tests.helpers.weight_folders import NOT_JSON

STORED = json.loads((ROOT / "reports" / "cpu-nano" / "bench.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "value"), [("prompt", "ocr"), ("max_tokens", 12), ("target", "a word")])
def test_another_prompt_or_limit_is_remarked(name, value):
    other = copy.deepcopy(STORED)
    assert compare_benchmarks(STORED, other)["differs"] == []
    other["method"][name] = value
    assert compare_benchmarks(STORED, other)["differs"] == [name]
    assert name in report.comparison_text("old", STORED, other)


def test_runs_that_stopped_early_are_not_compared(tmp_path):
    (tmp_path / "bench.partial.json").write_text(json.dumps({"format": 1, "pages": [], "complete": False}))
    partial = load_benchmark(tmp_path / "bench.partial.json")
    with pytest.raises(ValueError, match="stopped before the checkpoint was loaded"):
        compare_benchmarks(partial, STORED)


def refused(path) -> str:
    with pytest.raises(ValueError) as caught:
        load_benchmark(path)
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("text", NOT_JSON)
def test_json_that_is_none_is_refused(text, tmp_path):
    content = NOT_JSON[text]
    (tmp_path / "bench.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(tmp_path / "bench.json")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFO in a folder")
def test_a_fifo_and_a_device_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo.json")
    for path in (tmp_path / "fifo.json", "/dev/zero", tmp_path):
        assert "not a regular file" in refused(path)


def places(value, path=()):
    """The path of every value in a JSON value."""
    yield path
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    )
    for key, each in inner:
        yield from places(each, (*path, key))


PLACES = [
    path
    for path in places(STORED)
    if path and path[0] in ("format", "simulated", "stamp", "method", "counts", "pages")
]
ODD = [None, {}, [], "x", -1, 1e308, 0, True, [[]], {"a": {}}, "\x1b[31m<script>"]


def changed(path, value, whole=STORED):
    """The same value with another one at `path`; only what lies on the path is copied."""
    if not path:
        return value
    made = dict(whole) if isinstance(whole, dict) else list(whole)
    made[path[0]] = changed(path[1:], value, whole[path[0]])
    return made


@pytest.mark.fuzz
@given(st.sampled_from(PLACES), st.sampled_from(ODD))
def test_any_change_is_read_or_refused(tmp_path_factory, path, value):
    """The commands end with a report or one line, whatever one value of the file is."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "bench.json").write_text(json.dumps(changed(path, value)), encoding="utf-8")
    try:
        found = load_benchmark(folder / "bench.json")
    except ValueError as error:
        assert str(folder) in str(error)
        return
    if "stamp" in found:
        compare_benchmarks(STORED, found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("summary",), {"all": {}}),
        (("limits",), {"work": 1}),
        (("counts", "phases"), {"token": 3}),
        (("pages",), 7),
    ],
)
def test_report_answers_a_damaged_file_with_one_line(path, value, tmp_path):
    (tmp_path / "bench.json").write_text(json.dumps(changed(path, value)), encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "bench.json")])
    assert done.exit_code != 0 and isinstance(done.exception, ValueError)
    assert str(tmp_path) in str(done.exception) and len(str(done.exception).splitlines()) == 1
