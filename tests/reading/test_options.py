"""The reading options: one definition for the command line, `Reader` and the record of a batch."""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from deskocr_kit.batch.run import read_batch
from deskocr_kit.benchmark.child import bench
from deskocr_kit.benchmark.compare import compare_benchmarks
from deskocr_kit.benchmark.report import report_heading
from deskocr_kit.benchmark.spec import BenchSpec
from deskocr_kit.cli import app
from deskocr_kit.device.dtypes import DTYPES
from deskocr_kit.device.selection import KINDS
from deskocr_kit.reading.fingerprint import settings_of
from deskocr_kit.reading.options import WEIGHTS, LoadOptions, PageOptions, ReadingOptions
from deskocr_kit.reading.reader import Reader
from model import MODES, PROMPTS
from tests.helpers.paths import ROOT

LETTER = ROOT / "model" / "nano" / "pages" / "1_letter.png"
NAMES = [each.name for each in dataclasses.fields(ReadingOptions)]


@pytest.fixture(scope="module")
def reader():
    return Reader.load(LoadOptions(model="nano", device="cpu", dtype="fp32"))


def help_of(command: str) -> str:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", ["ocr", "batch", "shell", "bench"])
def test_commands_that_read_take_every_option(command):
    shown = help_of(command)
    assert [name for name in NAMES if f"--{name.replace('_', '-')} " not in shown] == []


def test_help_texts_name_what_there_is():
    shown = " ".join(help_of("ocr").split())
    for names in (MODES, PROMPTS, DTYPES, WEIGHTS):
        assert ", ".join(names) in shown
    assert ", ".join(KINDS) in shown
    for command in ("census", "predict"):
        assert ", ".join(MODES) in help_of(command)


ADDED = """
import sys, types
from importlib.util import find_spec

spec = find_spec("deskocr_kit.reading.options")
source = open(spec.origin, encoding="utf-8").read()
for kind, field in {fields!r}.items():
    head = f"class {{kind}}(Options):"
    assert source.count(head) == 1
    before, _, after = source.partition(head)
    first = after.index("    # No key") if kind == "LoadOptions" else after.index("    target: ")
    source = before + head + after[:first] + field + after[first:]
module = types.ModuleType(spec.name)
module.__spec__, module.__package__, module.__file__ = spec, "deskocr_kit.reading", spec.origin
sys.modules[spec.name] = module
exec(compile(source, spec.origin, "exec"), module.__dict__)

import dataclasses
from typer.testing import CliRunner
from deskocr_kit.batch.run import read_batch
from deskocr_kit.cli import app
from deskocr_kit.reading import reader

runner = CliRunner()
helps = {{name: runner.invoke(app, [name, "--help"]).output for name in ("ocr", "batch", "shell", "bench")}}
seen = []
real = reader.Reader.load.__func__

def load(cls, options, *more):
    seen.append(options.tiles_first)
    return real(cls, options, *more)

reader.Reader.load = classmethod(load)
words = ["--model", "nano", "--device", "cpu", "--max-tokens", "2", "--json"]
here = ["--one-process"]
records = []
for extra in ([], [], ["--margin", "3"], ["--margin", "3"], ["--margin", "3", "--tiles-first"]):
    done = runner.invoke(app, ["batch", {page!r}, "--out", {out!r}, *words, *here, *extra])
    assert done.exit_code == 0, done.output + repr(done.exception)
    records.append(__import__("json").loads(done.stdout))
runner.invoke(app, ["ocr", {page!r}, *words, "--tiles-first"])
runner.invoke(app, ["shell", *words[:6], "--tiles-first"], input="quit\\n")
print(repr({{
    "helps": {{name: ["--margin" in text, "--tiles-first" in text] for name, text in helps.items()}},
    "counts": [(len(r["read"]), len(r["skipped"])) for r in records],
    "settings": [{{k: r["settings"].get(k) for k in ("margin", "tiles_first")}} for r in records],
    "seen": seen,
}}))
"""


def test_a_new_field_reaches_every_command_the_reader_and_the_memory_of_a_batch(tmp_path):
    """The only edit is one line in each of the two classes of options."""
    fields = {
        "LoadOptions": '    tiles_first: bool = option(False, "A made-up switch.")\n',
        "PageOptions": '    margin: int = option(0, "A made-up number.", minimum=0)\n',
    }
    code = ADDED.format(fields=fields, page=str(LETTER), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = ast.literal_eval(done.stdout.splitlines()[-1])
    assert found["helps"] == {name: [True, True] for name in ("ocr", "batch", "shell", "bench")}
    # Read; resumed; read again with another margin; resumed; read again with the other switch.
    assert found["counts"] == [(1, 0), (0, 1), (1, 0), (0, 1), (1, 0)]
    unset, margin = {"margin": None, "tiles_first": None}, {"margin": 3, "tiles_first": None}
    assert found["settings"] == [unset, unset, margin, margin, {"margin": 3, "tiles_first": True}]
    assert found["seen"] == [False] * 4 + [True] * 3


# ---------------------------------------------------------------------- values
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"mode": "huge"}, "unknown mode 'huge'; choose one of tiny, small, base, large, gundam"),
        ({"weights": "int3"}, "unknown weights 'int3'; choose one of plain, int8, int4"),
        ({"dtype": "fp8"}, "unknown dtype 'fp8'; choose one of auto, fp32, bf16, fp16"),
        ({"device": "abacus"}, "unknown device 'abacus'; choose one of auto, npu, cuda, mps, cpu, npu-sim"),
        ({"max_tokens": 0}, "max_tokens is 0; expected at least 1"),
        ({"prompt": "documnet"}, "did you mean 'document'"),
        ({"prompt": "locate"}, "needs a target"),
        ({"target": "a cat"}, "takes a target"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_choices(wrong, told):
    with pytest.raises(ValueError) as caught:
        ReadingOptions(**wrong)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_names_are_compared_without_regard_to_case():
    options = ReadingOptions(mode=" Gundam", weights="INT8", dtype="FP16")
    assert (options.mode, options.weights, options.dtype) == ("gundam", "int8", "fp16")


@pytest.mark.parametrize("device", ["auto", "cpu", "npu:1", "CUDA", "npu-sim:as-published"])
def test_devices_with_an_index_or_a_profile(device):
    assert LoadOptions(device=device).device == device


def test_json_makes_the_same_options_again():
    options = ReadingOptions(model="nano", weights="int8", prompt="locate", target="a cat", max_tokens=3)
    assert ReadingOptions.from_json(options.to_json()) == options
    spec = BenchSpec(pages=("a.png",), mode="tiny")
    assert BenchSpec.from_json(spec.to_json()) == spec
    old = {"model": "nano", "device": "cpu", "pages": [], "count": 1}  # written before --weights existed
    assert BenchSpec.from_json(json.dumps(old)) == BenchSpec(device="cpu", count=1)


# ---------------------------------------------------------------------- benchmark
def test_the_line_that_repeats_a_benchmark_is_as_it_was():
    spec = BenchSpec(
        device="cpu", dtype="fp16", plan="reports/x/plan.json", pages=("scans/a.png",), count=2, seed=7,
        repeats=1, warmup=0, prompt="ocr", mode="tiny", max_tokens=9, success_cer=0.2,
        keep_text=True, peer=True,
    )  # fmt: skip
    assert spec.command() == (
        "deskocr bench a.png --device cpu --dtype fp16 --plan plan.json --count 2 --seed 7 --repeats 1 "
        "--warmup 0 --prompt ocr --mode tiny --max-tokens 9 --success-cer 0.2 --keep-text "
        "--compare unlimited_ocr"
    )
    assert BenchSpec().command() == "deskocr bench"
    assert BenchSpec(weights="int8").command() == "deskocr bench --weights int8"


def test_the_command_line_of_bench_makes_its_specification(monkeypatch, tmp_path):
    made = []

    def stop(spec, out, quiet=False):
        made.append(spec)
        raise KeyboardInterrupt

    monkeypatch.setattr("deskocr_kit.benchmark.child.bench", stop)
    words = [
        "bench",
        str(LETTER),
        "--device",
        "cpu",
        "--weights",
        "int4",
        "--plan",
        "p.json",
        "--repeats",
        "1",
    ]
    done = CliRunner().invoke(app, [*words, "--compare", "unlimited_ocr", "--out", str(tmp_path)])
    assert done.exit_code == 130, done.output
    assert made == [
        BenchSpec(device="cpu", weights="int4", plan="p.json", repeats=1, pages=(str(LETTER),), peer=True)
    ]


@pytest.mark.slow  # 16 s: two runs of the benchmark
def test_a_benchmark_of_quantised_weights_says_so_and_counts_them(reader, tmp_path):
    page, how = (str(LETTER),), {"device": "cpu", "repeats": 1, "warmup": 0, "max_tokens": 4}
    found = {
        kind: bench(BenchSpec(pages=page, weights=kind, **how), tmp_path / kind, quiet=True)
        for kind in ("plain", "int8")
    }
    plain, int8 = found["plain"], found["int8"]
    assert "int8 weights" in report_heading(int8) and "weights" not in report_heading(plain)
    parameters = sum(p.numel() for p in reader.model.parameters())
    assert [r["stamp"]["checkpoint"]["parameters"] for r in (plain, int8)] == [parameters] * 2
    for count in (lambda r: r["load"]["weight_bytes"], lambda r: r["limits"]["active_bytes_per_token"]):
        assert 0.25 < count(int8) / count(plain) < 0.5
    flops = [r["limits"]["work"]["decode"]["flop"] for r in (int8, plain)]
    assert flops[0] == pytest.approx(flops[1], rel=0.1)
    compared = compare_benchmarks(plain, int8)
    assert "weights" in compared["differs"] and not compared["why_not"]
    earlier = copy.deepcopy(plain)
    del earlier["stamp"]["checkpoint"]["weights"]
    assert "weights" not in compare_benchmarks(earlier, plain)["differs"]


# ---------------------------------------------------------------------- reader and batch
STORED_KEYS = [  # of `settings` in result.json and summary.json since the first release
    "mode", "max_new_tokens", "no_repeat_ngram_size", "ngram_window", "prompt", "model", "weights", "device",
    "dtype",
]  # fmt: skip


def test_stored_settings_are_as_they_were(reader):
    found = settings_of(reader, PageOptions())
    assert list(found) == STORED_KEYS
    assert (found["mode"], found["prompt"], found["device"]) == ("tiny", PROMPTS["free"], "cpu")
    asked = settings_of(
        reader, ReadingOptions(model="x", device="npu", dtype="fp16", mode="base", max_tokens=5)
    )
    assert asked == {**found, "mode": "base", "max_new_tokens": 5}, "the reader knows what was loaded"


def test_quantised_weights_are_loaded_named_and_read_again(reader, tmp_path):
    rounded = Reader.load("nano", "cpu", "fp32", weights="int8")
    assert rounded.options == LoadOptions("nano", "cpu", "fp32", None, "int8")
    size = lambda r: sum(t.nbytes for t in [*r.model.parameters(), *r.model.buffers()])  # noqa: E731
    assert size(rounded) < 0.5 * size(reader)
    extra = {"weights_kind": "int8"}
    assert settings_of(rounded, PageOptions()) == settings_of(reader, PageOptions()) | extra
    limit = {"max_tokens": 2}
    assert read_batch([LETTER], reader, tmp_path, **limit).read == ["1_letter"]
    assert read_batch([LETTER], reader, tmp_path, **limit).skipped == ["1_letter"]
    assert read_batch([LETTER], rounded, tmp_path, **limit).read == ["1_letter"]
    assert read_batch([LETTER], rounded, tmp_path, **limit).skipped == ["1_letter"]
    stored = json.loads((tmp_path / "1_letter" / "result.json").read_text())
    assert stored["weights"] == "int8" and stored["settings"]["weights_kind"] == "int8"


def test_a_device_that_was_picked_replaces_that_of_the_options():
    import torch

    made = Reader.load(
        ReadingOptions(model="nano", device="auto", dtype="fp32", mode="base"), torch.device("cpu")
    )
    assert made.model.device.type == "cpu" and type(made.options) is LoadOptions


def test_no_command_imports_another():
    folder = ROOT / "deskocr_kit" / "commands"
    shared = {"options", "ranks", "terminal", "__init__"}
    commands = {path.stem for path in folder.glob("*.py")} - shared
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                assert (node.module or "") not in commands, f"{path.name} imports {node.module}"
