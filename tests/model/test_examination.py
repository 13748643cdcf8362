"""`weights check` and loading make the same examination, and every folder has an answer in bounded time."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deskocr_kit.reading.doubt import limits_of
from deskocr_kit.reading.reader import Reader
from model import DeepseekOCRForCausalLM
from model.examination import examine
from model.inference import defaults
from model.weight_files import CheckpointError
from tests.helpers import weight_folders as made
from tests.helpers.paths import NANO, ROOT
from tests.helpers.weight_folders import INDEX, WEIGHTS, edit_header, replaced_by, set_keys, write

FIRST = "lm_head.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    return made.copy_of_nano(tmp_path / "weights")


def fails(folder: Path, row: str, words: str) -> None:
    """`weights check` has this row, and reading with the folder raises the same message."""
    found = examine(folder)
    last = found.findings[-1]
    assert (last.name, last.status) == (row, "FAIL"), found.findings
    assert re.search(words, last.seen, re.S), last.seen
    assert "cannot be examined" not in last.seen and "\x1b" not in last.seen and last.remedy
    with pytest.raises(CheckpointError) as caught:
        if row in ("tokenizer", "settings"):
            Reader.load(str(folder), "cpu", "fp32")
        else:
            DeepseekOCRForCausalLM.from_pretrained(folder)
    assert str(caught.value) == last.seen


def test_nano_is_complete():
    found = examine(NANO)
    assert found.usable and {each.status for each in found.findings} == {"OK"}
    assert [each.name for each in found.findings] == [
        "config", "files", "tensors", "dtype", "network", "tokenizer", "settings",
    ]  # fmt: skip


# ---------------------------------------------------------------------------- JSON that is none
SOME = ("half", "a list", "nested lists", "a git-lfs pointer")  # where an answer takes half a second
BROKEN = [
    *((name, text) for name in ("config.json", INDEX) for text in made.NOT_JSON),
    *((name, text) for name in ("tokenizer.json", "tokenizer_config.json") for text in SOME),
    *(("generation_config.json", text) for text in SOME[:2]),
]
ROW = {"config.json": "config", INDEX: "files", "generation_config.json": "settings"}


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_json_that_is_none_is_a_row(folder, name, text):
    write(name, made.NOT_JSON[text])(folder)
    fails(folder, ROW.get(name, "tokenizer"), re.escape(name))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFO in a folder")
@pytest.mark.parametrize("what", [made.fifo, made.device, made.dangling, made.directory])
@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json"])
def test_what_is_no_file_is_named(folder, name, what):
    replaced_by(name, what)(folder)
    words = {
        made.fifo: "FIFO",
        made.device: "device",
        made.dangling: "without a target",
        made.directory: "older",
    }
    fails(folder, {WEIGHTS: "files", "tokenizer.json": "tokenizer", **ROW}[name], words[what])


# ---------------------------------------------------------------------------- headers
def nowhere(header):
    header[FIRST]["data_offsets"] = [-8, header[FIRST]["data_offsets"][1] - 8]


def fractions(header):
    header[FIRST]["data_offsets"] = [float(each) for each in header[FIRST]["data_offsets"]]


def overlap(header):
    names = [name for name in header if name.endswith("q_proj.weight")][:2]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]


def hole(header):
    del header[FIRST]


def huge_shape(header):
    header[FIRST]["shape"] = [10**30, 10**30]


HEADERS = {
    "negative offsets": (edit_header(nowhere), "has offsets"),
    "fractional offsets": (edit_header(fractions), "has offsets"),
    "overlapping offsets": (edit_header(overlap), "overlaps|gap"),
    "a hole": (edit_header(hole), "gap|half|longer"),
    "a shape of 10**30": (edit_header(huge_shape), "for shape"),
    "true as an offset": (edit_header(lambda h: h[FIRST].update(data_offsets=[True, 2])), "has offsets"),
    "a shape of text": (edit_header(lambda h: h[FIRST].update(shape="ab")), "for shape ab"),
    "no shape": (edit_header(lambda h: h[FIRST].pop("shape") and None), "for shape None"),
    "an item is a list": (edit_header(lambda h: h.update({FIRST: []})), "JSON list"),
    "dtype a number": (edit_header(lambda h: h[FIRST].update(dtype=7)), "has dtype 7"),
    "many dimensions": (edit_header(lambda h: h[FIRST].update(shape=[1] * 50)), "for shape"),
    "escapes in a name": (edit_header(lambda h: h.update({"\x1b[31m": []})), "JSON list"),
    "a header of a list": (lambda f: made.with_header(f, []), "JSON list"),
    "a length of 2**63": (
        lambda f: (f / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 63) + b"{}"),
        "a header of",
    ),
    "nested": (lambda f: made.with_header(f, b"[" * 100_000), "nested deeper"),
    "one name twice": (lambda f: made.with_header(f, b'{"a": {}, "a": {}}'), "twice"),
    "a pickle": (lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04" + b"0" * 100), "a pickle"),
}


@pytest.mark.parametrize("fault", HEADERS)
def test_headers_that_cannot_be(folder, fault):
    spoil, words = HEADERS[fault]
    spoil(folder)
    fails(folder, "files", words)


# ---------------------------------------------------------------------------- left-overs, other weights
def old_index(folder):
    (folder / INDEX).write_text(json.dumps({"weight_map": {FIRST: "model-00001-of-000002.safetensors"}}))


def links(folder):
    (folder / WEIGHTS).unlink()
    made.dangling(folder / "model-1.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {FIRST: "model-1.safetensors"}}))


def adapter(folder):
    (folder / "config.json").unlink()
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "deepseek-ai/DeepSeek-OCR"}')


def adapter_tensors(folder):
    made.rename_tensors(lambda n: f"base_model.model.{n.removesuffix('.weight')}.lora_A.weight")(folder)


def beside(folder):
    made.with_header(
        folder,
        {
            "model.layers.0.self_attn.q_proj.lora_A.weight": {
                "dtype": "F32",
                "shape": [1],
                "data_offsets": [0, 4],
            }
        },
        b"0000",
        "adapter_model.safetensors",
    )


OTHERS = {
    "an old index": (old_index, "files", f"{INDEX} is a left-over.*Delete"),
    "links of a cache": (links, "files", "links without a target: model-1.*cp -L"),
    "a LoRA adapter": (adapter, "config", "a LoRA adapter of deepseek-ai/DeepSeek-OCR, not a model"),
    "tensors of an adapter": (adapter_tensors, "tensors", "belong to a LoRA adapter"),
    "an adapter beside": (beside, "tensors", "1 of 227 tensors belong to a LoRA adapter"),
    "DataParallel": (made.rename_tensors(lambda n: f"module.{n}"), "tensors", "begin with 'module.*Parallel"),
    "compiled": (made.rename_tensors(lambda n: f"_orig_mod.{n}"), "tensors", "torch.compile adds"),
    "a training wrapper": (made.rename_tensors(lambda n: f"student.{n}"), "tensors", "begin with 'student.'"),
    "PEFT": (made.rename_tensors(lambda n: f"base_model.model.{n}"), "tensors", "which PEFT adds"),
    "another model": (
        made.rename_tensors(lambda n: f"bert.{hash(n)}"),
        "tensors",
        "weights of another model",
    ),
    "a llama": (set_keys("config.json", architectures=["LlamaForCausalLM"]), "config", "another model"),
    "an unknown type": (
        set_keys("config.json", architectures=None, model_type="bert"),
        "config",
        "another model",
    ),
    "llama.cpp": (lambda f: (f / WEIGHTS).rename(f / "model-q4.gguf"), "files", "llama.cpp"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_things_are_named_for_what_they_are(folder, what):
    spoil, row, words = OTHERS[what]
    spoil(folder)
    fails(folder, row, words)


def test_left_overs_are_named_and_ignored(folder):
    (folder / f"._{WEIGHTS}").write_bytes(b"\0\5\26\7" * 30)
    (folder / "._config.json").write_bytes(b"\0\5\26\7" * 30)
    found = examine(folder)
    (row,) = (each for each in found.findings if each.name == "files")
    assert found.usable and row.status == "WARN" and f"._{WEIGHTS} is a left-over of macOS" in row.seen
    Reader.load(str(folder), "cpu", "fp32")


def test_files_that_the_index_does_not_name_are_ignored(folder):
    header, _ = made.header_of(folder)
    names = dict.fromkeys((name for name in header if name != "__metadata__"), WEIGHTS)
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))
    made.with_header(folder, {}, b"", "old.safetensors")
    found = examine(folder)
    assert found.usable and any("old.safetensors is not named by" in each.seen for each in found.findings)


# ---------------------------------------------------------------------------- the other small files
SETTINGS = {
    "a mode": (set_keys("generation_config.json", mode="huge"), 'mode is "huge"'),
    "tokens": (set_keys("generation_config.json", max_new_tokens=1e12), "max_new_tokens is 1"),
    "no number": (set_keys("generation_config.json", no_repeat_ngram_size="20"), "no_repeat_ngram_size"),
    "a window": (set_keys("generation_config.json", ngram_window=-1), "ngram_window is -1"),
    "a threshold": (write("confidence.json", '{"threshold": "high"}'), "threshold"),
    "a domain": (write("confidence.json", '{"domain": []}'), "domain"),
    "half a domain": (write("confidence.json", '{"domain": {"reduction": 2}}'), "needs both"),
    "no modes": (write("confidence.json", '{"domain": {"modes": [1]}}'), "modes"),
}


@pytest.mark.parametrize("fault", SETTINGS)
def test_settings_that_cannot_be_used_are_named(folder, fault):
    spoil, words = SETTINGS[fault]
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        defaults(folder) and limits_of(folder)


def test_settings_are_part_of_the_examination(folder):
    SETTINGS["a mode"][0](folder)
    fails(folder, "settings", "mode is")
    SETTINGS["a threshold"][0](made.copy_of_nano(folder.with_name("other")))
    fails(folder.with_name("other"), "settings", "threshold")


# ---------------------------------------------------------------------------- bounds
def many_tensors(folder):
    """A header of 8 MB with 120,000 tensors."""
    header = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(120_000)}
    made.with_header(folder, header, b"0" * 120_000)


def many_files(folder):
    """1,500 files of 80 tensors."""
    for k in range(1500):
        header = {f"t{k}.{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(80)}
        made.with_header(folder, header, b"0" * 80, f"part-{k}.safetensors")


def deep_index(folder):
    names = {f"tensor.{i}": WEIGHTS for i in range(120_000)}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def downloads(folder):
    (folder / WEIGHTS).unlink()
    for k in range(2000):
        (folder / "._____temp" / str(k)).mkdir(parents=True)


def sparse_weights(folder):
    header, _ = made.header_of(folder)
    header["extra"] = {"dtype": "F16", "shape": [1 << 40], "data_offsets": [9888448, 9888448 + (2 << 40)]}
    made.with_header(folder, header)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate((folder / WEIGHTS).stat().st_size + (2 << 40))


def billions(**keys):
    return set_keys("config.json", **keys, language_config={})


EXTREMES = {
    "1e9 layers": (billions(num_hidden_layers=10**9), "num_hidden_layers"),
    "512 layers of 1024 experts": (
        billions(num_hidden_layers=512, n_routed_experts=1024),
        "1,574,911 tensors",
    ),
    "512 dense layers": (billions(num_hidden_layers=512, first_k_dense_replace=512), "missing|describes"),
    "a vocabulary of 1e9": (billions(vocab_size=10**9), "vocab_size"),
    "a width of 1e9": (billions(hidden_size=10**9), "hidden_size"),
    "1e5 positions of SAM": (set_keys("config.json", vision_config={"image_size": 10**5}), "image_size"),
    "120,000 tensors": (many_tensors, "more than"),
    "1,500 files": (many_files, "MiB|more than"),
    "an index of 120,000 names": (deep_index, "not in their file|bytes, more than"),
    "2,000 folders of downloads": (downloads, "no .*safetensors"),
    "a file of 2 TB": (sparse_weights, "1 not part of this network: extra"),
    "a config of 17 MB": (write("config.json", '{"a": "' + "x" * (17 << 20) + '"}'), "17,825,"),
    "a tokenizer of 1 TB": (replaced_by("tokenizer.json", made.sparse), "1,099,511,627,776 bytes"),
}


CODE = """
import json, os, resource, sys
from typer.testing import CliRunner
from deskocr_kit.commands import weights
from deskocr_kit.device import device_memory
for folder in sys.argv[1:]:
    began = os.times()
    done = CliRunner().invoke(weights.app, ["check", folder], catch_exceptions=False)
    spent = [b - a for a, b in zip(began[:4], os.times()[:4])]
    # ru_maxrss of this process would begin with that of the test process, from which it was forked.
    peak = max(device_memory("cpu").peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    print(json.dumps([folder, done.exit_code, done.output, sum(spent), peak]))
"""


def test_any_folder_is_answered_within_the_bounds(tmp_path):
    """20 s and 2 GB, see docs/security.md. Measured: at most 4 s besides the 2.4 s of starting, 0.5 GB."""
    folders = {what: made.copy_of_nano(tmp_path / str(i)) for i, what in enumerate(EXTREMES)}
    for what, folder in folders.items():
        EXTREMES[what][0](folder)
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, folders.values())],
        capture_output=True, text=True, cwd=ROOT, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for (what, folder), (name, status, printed, seconds, peak) in zip(folders.items(), lines, strict=True):
        print(f"{what}: {seconds:.1f} s, {peak >> 20} MB")
        assert name == str(folder) and status == 1 and re.search(EXTREMES[what][1], printed), printed
        assert max(map(len, printed.splitlines())) < 2100 and len(printed) < 20_000
        assert seconds < 15 and peak < 2 << 30, what


def test_reading_raises_before_the_weights_are_read(folder, monkeypatch):
    from model import loading

    (folder / "tokenizer.json").unlink()
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the weights were read first"))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="tokenizer.json is missing"):
        Reader.load(str(folder), "cpu", "fp32")
    assert time.monotonic() - began < 10
