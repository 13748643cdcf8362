"""`deskocr bench --engine openai`: what a client can measure, in the form of every other benchmark."""

from __future__ import annotations

import json
import threading

import jsonschema
import pytest

from deskocr_kit.benchmark import report, report_figures
from deskocr_kit.benchmark.compare import compare_benchmarks
from deskocr_kit.benchmark.measure import measure
from deskocr_kit.benchmark.spec import BenchSpec
from tests.helpers.engine_server import EngineServer
from tests.helpers.paths import ROOT
from tests.helpers.stub_reader import GOOD, save

SCHEMA = json.loads((ROOT / "deskocr_kit" / "benchmark" / "bench.schema.json").read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    files = save(folder, [GOOD] * 3)
    for n, file in enumerate(files):
        file.with_suffix(".txt").write_text(f"page {n}")
    together = threading.Barrier(3)
    with EngineServer("vllm") as server:
        server.seconds = 0.02

        def read(image, body):
            if not body.get("stream") and not server.is_known(image):
                together.wait(30)  # passes three requests at a time
            return server.stub(image, body)

        server.read = read
        spec = BenchSpec(
            engine="openai",
            base_url=server.url,
            pages=tuple(map(str, files)),
            repeats=2,
            warmup=1,
            concurrency=3,
        )
        result = measure(spec, folder)
        return server, result, folder


def test_the_result_has_the_form_of_every_benchmark(measured):
    _, result, folder = measured
    jsonschema.validate(result, SCHEMA)
    assert json.loads((folder / "bench.json").read_text()) == json.loads(json.dumps(result))
    assert result["engine"]["version"] == "0.12.0" and result["engine"]["ngram_guard"] is True
    assert [page["cer"] for page in result["pages"]] == [0, 0, 0]
    for page in result["pages"]:
        assert page["success"] and page["new_tokens"] == 3 and len(page["runs"]) == 2
        for run in page["runs"]:
            assert 0.02 < run["ttft"] <= run["e2e"] <= run["seconds"] and len(run["gaps"]) == 1
    row = result["summary"]["all"]
    assert row["ttft"]["n"] == 6 and row["tokens_per_second"] > 0 and row["phases"]["vision"] is None
    assert "counts" not in result and "limits" not in result, "a client cannot see them"


def test_the_throughput_is_that_of_several_requests_at_a_time(measured):
    server, result, _ = measured
    found = result["throughput"]
    assert (found["concurrency"], found["pages"], server.most_at_once) == (3, 6, 3)
    assert found["pages_per_second"] == pytest.approx(found["pages"] / found["seconds"])
    assert sum(each.get("stream", False) for each in server.requests) == 1 + 6, "the others need no stream"


def test_the_report(measured):
    _, result, folder = measured
    text = report.text(result)
    assert text.startswith("DeepSeek-OCR, served by vllm 0.12.0") and "Throughput of the engine" in text
    assert "Parts of a page that the client sees" in text and "vision " not in text.split("Parts of")[1]
    assert {"latency", "accuracy"} == report_figures.figures(result).keys()
    paths = report.save(result, folder / "report")
    for path in paths:
        content = path.read_text("utf-8")
        assert "http://HOST/v1" in content and "127.0.0.1" not in content
    assert not compare_benchmarks(result, result)["why_not"]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"engine": "openai"}, "needs --base-url"),
        ({"engine": "openai", "base_url": "http://h", "peer": True}, "needs --engine kit"),
        ({"base_url": "http://h"}, "belongs to --engine openai"),
    ],
)
def test_options_that_do_not_belong_together(given, what):
    with pytest.raises(ValueError, match=what):
        BenchSpec(**given)
