"""`deskocr report`: one self-contained file, escaped, with a warning and no times for a simulated device."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import jsonschema
import pytest

from deskocr_kit.benchmark import report
from deskocr_kit.benchmark.compare import load_benchmark
from deskocr_kit.benchmark.kernels_used import kernels_used
from deskocr_kit.operators.kernels.candidates import CANDIDATES
from model.fast import DEFAULTS
from tests.helpers.paths import ROOT

STORED = [ROOT / "reports" / name for name in ("cpu-nano", "npu-sim-as-published-nano")]
SCHEMA = ROOT / "deskocr_kit" / "benchmark" / "bench.schema.json"
EVIL = "<script>alert(1)</script> ![x](http://e.example/x.png)"


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "data", "xlink:href")]


@pytest.fixture(scope="module", params=STORED, ids=lambda path: path.name)
def stored(request):
    return load_benchmark(request.param / "bench.json")


def test_html_loads_nothing_and_runs_nothing(stored, tmp_path):
    _, page = report.save(stored, tmp_path)
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    assert not {"script", "link", "iframe", "img"} & set(tags.names) and "svg" in tags.names
    assert not [address for address in tags.addresses if not address.startswith("#")]


def test_model_text_is_escaped(stored, tmp_path):
    evil = copy.deepcopy(stored)
    evil["pages"][0] |= {"text": EVIL, "truth": EVIL, "name": EVIL}
    evil["stamp"]["variables"]["X"] = EVIL
    _, page = report.save(evil, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text


def test_markdown_shows_every_figure(stored, tmp_path):
    path, _ = report.save(stored, tmp_path)
    named = re.findall(r"!\[[^\]]+\]\((\w+\.svg)\)", path.read_text(encoding="utf-8"))
    assert named and sorted(named) == sorted(each.name for each in tmp_path.glob("*.svg"))
    if not stored["simulated"]:
        assert {each.split(".")[0] for each in named} == {
            "phases", "roofline", "launches", "latency", "accuracy"
        }  # fmt: skip


def test_a_simulated_device_shows_no_time(stored):
    if not stored["simulated"]:
        assert report.SIMULATED not in report.text(stored)
        return
    text = report.markdown(stored, {}, [], "")
    assert text.splitlines()[2] == f"> **{report.SIMULATED}**"
    assert "TTFT" not in text and "tokens/s" not in text and " ms" not in text
    assert stored["load"]["seconds"] is None and not any(page["runs"] for page in stored["pages"])


def test_partial_results_say_so(stored):
    cut = copy.deepcopy(stored) | {"complete": False, "stopped": "interrupted"}
    del cut["counts"], cut["limits"]
    assert "PARTIAL: interrupted" in report.text(cut)
    empty = {"format": 1, "complete": False, "stopped": "interrupted", "pages": [], "summary": {}}
    assert "PARTIAL" in report.text(empty) and "PARTIAL" in report.html(empty, {}, [], "")


def test_the_published_figures_stand_apart():
    text = report.original_text()
    assert "31.9 s" in text and "no ratio" in text and "unverified" in text


def test_a_run_with_kernels_shows_what_is_known_about_each(stored):
    """Only of the slots that hold a kernel; a run without kernels has no such table."""
    assert "Kernels in this run" not in report.text(stored) and kernels_used(DEFAULTS) is None
    found = kernels_used({**DEFAULTS, "rms_norm": CANDIDATES["rms_norm"]["triton"]})
    assert [row[0] for row in found["rows"]] == ["rms_norm"] and found["head"][2:] == [
        "interpreted", "lowered", "assembled (CUDA)", "compiled (CUDA)", "run (NPU)"
    ]  # fmt: skip
    with_kernels = {**stored, "kernels": found}
    for text in (report.text(with_kernels), report.html(with_kernels, {}, [], "")):
        assert "Kernels in this run, and what is known about each" in text and "rms_norm" in text
    jsonschema.validate(with_kernels, json.loads(SCHEMA.read_text("utf-8")))


def test_records_of_other_kernels_are_said_in_the_report(stored, monkeypatch):
    monkeypatch.setattr("deskocr_kit.kernel_evidence.table.kernel_digest", lambda: "0" * 12)
    found = kernels_used({"rms_norm": CANDIDATES["rms_norm"]["triton"]})
    assert "make it again" in report.text({**stored, "kernels": found})
