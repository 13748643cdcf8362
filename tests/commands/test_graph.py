"""`--graph`: the decode step as a graph of the device, through the commands, with a stand-in for graphs."""

from __future__ import annotations

import copy
import json
from types import SimpleNamespace

import jsonschema
import pytest
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode
from typer.testing import CliRunner

from deskocr_kit.batch.devices import load
from deskocr_kit.benchmark import report
from deskocr_kit.benchmark.compare import compare_benchmarks
from deskocr_kit.benchmark.measure import measure
from deskocr_kit.benchmark.spec import BenchSpec
from deskocr_kit.cli import app
from deskocr_kit.device import GraphError, graphs
from deskocr_kit.reading.engines.options import ServedOptions
from deskocr_kit.reading.engines.reader import open_reader
from deskocr_kit.reading.ocr_options import OcrOptions
from deskocr_kit.reading.options import LoadOptions, ReadingOptions
from deskocr_kit.reading.reader import Reader
from model import DeepseekOCRForCausalLM
from model.fast import DEFAULTS
from model.fast.moe import gathered
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.fresh_process import deskocr
from tests.helpers.paths import NANO, ROOT
from tests.helpers.tape import Tape, give_the_cpu_graphs

PAGES = [str(NANO / "pages" / name) for name in ("1_letter.png", "2_invoice.png")]
READ = ["--model", "nano", "--device", "cpu", "--dtype", "fp32", "--max-tokens", "12"]
SCHEMA = json.loads((ROOT / "deskocr_kit" / "benchmark" / "bench.schema.json").read_text())


@pytest.fixture
def tapes(monkeypatch) -> list[Tape]:
    return give_the_cpu_graphs(monkeypatch)


def run(command: str, *words: str):
    done = CliRunner().invoke(app, [command, *words, *READ])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done


# ---------------------------------------------------------------------- the same text
def test_ocr_reads_the_same_text_with_a_graph(tapes):
    kept = ("text", "tokens", "truncated")
    plain = [{name: page[name] for name in kept} for page in json.loads(run("ocr", *PAGES, "--json").stdout)]
    assert not tapes and len(plain) == 2
    done = run("ocr", *PAGES, "--json", "--graph")
    assert [{name: page[name] for name in kept} for page in json.loads(done.stdout)] == plain
    assert "reading with nano on cpu, float32, decoding by a graph" in done.stderr
    assert len(tapes) == 3, "one for the trial, one for each page"
    streamed = run("ocr", PAGES[0], "--stream", "--graph").stdout
    assert streamed.startswith(plain[0]["text"]) and len(tapes) == 5


def test_a_batch_with_a_graph_reads_the_same_and_resumes_one_without(tapes, tmp_path):
    words = ("--one-process", "--batch-size", "2", "--json", "--format", "none")
    texts, read = [], []
    for name, more in (("a", []), ("b", ["--graph"]), ("b", []), ("a", ["--graph"])):
        done = run("batch", *PAGES, "--out", str(tmp_path / name), *words, *more)
        read.append(len(json.loads(done.stdout)["read"]))
        lines = (tmp_path / name / "pages.jsonl").read_text().splitlines()
        texts.append(sorted(json.loads(line)["text"] for line in lines))
    assert read == [2, 2, 0, 0], "no text depends on --graph, so it is not read again"
    assert texts[1:] == texts[:1] * 3 and len(texts[0]) == 2
    assert tapes


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [[[(1, 1)]], [[(1, 1)], []]], ids=["one", "padded"])
def test_each_model_of_the_family_decodes_by_a_graph(tapes, name, samples):
    """Unlimited-OCR's window is shorter than the answer: a place in its ring is no constant of the graph."""
    model = DeepseekOCRForCausalLM.random(tiny(name, 3 if name == "unlimited-ocr" else None), seed=3)
    model.use_plan({**vars(model.slots), "moe": gathered})
    given = batch(model.config, samples)
    how = {**given, "max_new_tokens": 10, "eos_token_id": None, "no_repeat_ngram_size": 2}
    assert model.generate(**how, record=graphs("cpu")).equal(model.generate(**how))
    assert len(tapes) == 1


# ---------------------------------------------------------------------- benchmark
def test_a_benchmark_says_that_it_used_a_graph(tapes, tmp_path):
    spec = BenchSpec(device="cpu", graph=True, repeats=1, warmup=0, max_tokens=4, pages=(PAGES[0],))
    result = measure(spec, tmp_path)
    jsonschema.validate(result, SCHEMA)
    assert len(tapes) == 2 and result["method"]["graph"] is True
    assert "--graph" in result["stamp"]["command"]
    assert report.report_heading(result).endswith(", float32, decoding by a graph")
    assert report.GRAPH in report.warnings(result) and report.GRAPH in report.text(result)
    plain = copy.deepcopy(result)
    plain["method"]["graph"] = False
    earlier = copy.deepcopy(plain)
    del earlier["method"]["graph"]  # written before --graph existed
    for other in (plain, earlier):
        assert compare_benchmarks(other, result)["differs"] == ["graph"]
        assert "graph" not in report.report_heading(other) and report.GRAPH not in report.warnings(other)
    assert compare_benchmarks(earlier, plain)["differs"] == []


# ---------------------------------------------------------------------- refused
@pytest.mark.parametrize(
    "words", [("ocr", PAGES[0]), ("bench", PAGES[0], "--out"), ("batch", PAGES[0], "--one-process", "--out")]
)
@pytest.mark.parametrize(
    ("device", "why"),
    [("cpu", "cpu has no graphs to record"), ("npu-sim", "the simulated NPU has no graphs to record")],
)
def test_a_device_without_graphs_is_told_in_one_line(words, device, why, tmp_path):
    out = [str(tmp_path / "out")] if words[-1] == "--out" else []
    done = deskocr(*words, *out, "--model", "nano", "--device", device, "--graph")
    told = [line for line in done.stderr.splitlines() if not line.startswith("simulated NPU, profile")]
    assert done.returncode == 2 and done.stdout == ""
    assert len(told) == 1 and told[0].startswith(f"error: {why}") and "Leave out --graph" in told[0]


def test_no_weights_are_read_for_a_device_without_graphs():
    def load_weights(*_):
        raise AssertionError("the weights were read")

    with pytest.raises(GraphError, match="cpu has no graphs"):
        Reader.load("nano", "cpu", graph=True, from_pretrained=load_weights)


def test_an_npu_without_graphs_says_why(monkeypatch):
    class NPU:
        simulated = False

    monkeypatch.setattr(torch, "npu", NPU, raising=False)
    monkeypatch.setattr(torch, "device", lambda name: SimpleNamespace(type="npu"))  # torch_npu adds the name
    with pytest.raises(GraphError, match=r"no graphs for npu: torch\.npu\.NPUGraph is missing"):
        graphs("npu:0")
    NPU.NPUGraph = object
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    with pytest.raises(GraphError, match="TASK_QUEUE_ENABLE=2"):
        graphs("npu:0")


def test_options_that_do_not_fit():
    for weights in ("int8", "int4"):
        with pytest.raises(ValueError, match=f"--graph and --weights {weights} cannot be combined"):
            LoadOptions(graph=True, weights=weights)
    for kind in (ReadingOptions, BenchSpec):
        with pytest.raises(ValueError, match="cannot be combined"):
            kind(graph=True, weights="int8")
    for several in ({"tensor_parallel": 2}, {"pipeline_parallel": 2}):
        with pytest.raises(ValueError, match="--graph needs one process"):
            OcrOptions(graph=True, **several)


def test_a_server_has_no_graph_here(tmp_path):
    server = {"engine": "openai", "base_url": "http://localhost:1/v1", "graph": True}
    with pytest.raises(ValueError, match="--graph belongs to the kit's own network"):
        open_reader(ServedOptions(**server), print)
    with pytest.raises(ValueError, match="--graph belongs to the kit's own network"):
        measure(BenchSpec(**server), tmp_path)


def test_a_step_that_cannot_be_recorded_fails_before_the_first_page(tapes, monkeypatch):
    """With more pages than `gathered` takes at once, an implementation waits for the device."""

    def waits(x, *more):
        if len(x) > 1 and isinstance(_get_current_dispatch_mode(), Tape):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore lines")
        return gathered(x, *more)

    waits.prepare = gathered.prepare
    monkeypatch.setitem(DEFAULTS, "moe", waits)
    options = LoadOptions("nano", "cpu", "fp32", graph=True)
    assert load(options, "cpu").where.endswith("decoding by a graph")
    with pytest.raises(GraphError) as caught:
        load(options, "cpu", batch=2)
    text = str(caught.value)
    assert "cannot be recorded" in text and "not permitted when stream is capturing" in text
    assert "fewer pages at a time" in text and "\n" not in text
