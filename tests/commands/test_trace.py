"""`deskocr trace`, `profile`, `msprobe` as commands."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from deskocr_kit.cli import app
from tests.helpers.paths import DATA

TRACES = DATA / "traces"


def run(*words, code=0):
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_json_has_the_documented_keys_and_the_substitutes():
    found = json.loads(run("trace", TRACES / "level0", "--json", "--checkpoint", "nano").stdout)
    keys = {"kernels", "device_us", "busy_us", "idle_us", "ai_cpu", "by_type", "substitutes"}
    assert keys <= found.keys() and set(found["ai_cpu"]) == {"count", "us"}
    assert found["by_type"][0]["type"] == "MaskedScatter"
    best = found["substitutes"][0]
    assert best["slot"] == "place_images" and best["removes"][0]["type"] == "MaskedScatter"
    assert best["saves_us"] == 5000.25 and "estimate" in best["kind"]


@pytest.mark.parametrize("content", ["", "date,amount\n1,2\n", "{}"])
def test_foreign_files_have_a_status_and_one_line(tmp_path, content):
    (tmp_path / "kernel_details.csv").write_text(content)
    for place in (tmp_path, tmp_path / "kernel_details.csv", tmp_path / "nothing"):
        result = run("trace", place, code=2)
        assert result.stdout == "" and result.stderr.count("\n") == 1
        assert result.stderr.startswith("deskocr trace: ")


def test_two_traces_a_figure_and_too_many(tmp_path):
    both = (TRACES / "level0", TRACES / "msprof")
    found = json.loads(run("trace", *both, "--json").stdout)
    assert found["a"]["kernels"] == 5 and found["b"]["kernels"] == 3
    assert found["difference"]["kernels"] == -2
    run("trace", TRACES / "level0", "--checkpoint", "none", "--out", tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes()[:4] == b"\x89PNG"
    run("trace", *both, TRACES / "cuda", code=2)


def test_a_calibrated_chip_is_used_by_predict_and_named_as_measured(tmp_path):
    file = tmp_path / "chips.json"
    run("trace", TRACES / "level1", "--checkpoint", "none", "--calibrate", "910B2", "--measured", file)
    words = ("predict", "--chip", "910B2", "--model", "nano", "--mode", "tiny")
    text = run(*words, "--measured", file).stdout
    assert "launch cost: 20 us (measured; measured: 25 gaps" in text and "sourced: 16..31" in text
    assert "PREDICTION" in text and "launch cost: 16..31 us" in run(*words).stdout
    result = CliRunner().invoke(app, [*words, "--measured", str(tmp_path / "no.json")])
    assert "deskocr trace DIR --calibrate" in str(result.exception)
