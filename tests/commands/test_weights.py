"""`deskocr weights check`: its messages for complete, foreign and damaged folders, and its exit status."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deskocr_kit.commands import weights
from model.official import DEEPSEEK_OCR
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import DATA, NANO

OFFICIAL = DATA / "official_weight_shapes.json"
WEIGHTS = "model.safetensors"


def call(*arguments) -> tuple[int, str]:
    done = CliRunner().invoke(weights.app, ["check", *map(str, arguments)], catch_exceptions=False)
    return done.exit_code, done.output


def answer(*arguments) -> tuple[int, dict]:
    code, printed = call(*arguments, "--json")
    return code, json.loads(printed)


def row(told: dict, name: str) -> dict:
    return next(row for row in told["rows"] if row["name"] == name)


def tokenizer(folder: Path, image: int) -> None:
    """Nano's byte-level tokenizer with another id for <image>."""
    stored = json.loads((NANO / "tokenizer.json").read_text())
    for token in stored["added_tokens"]:
        if token["content"] == "<image>":
            token["id"] = image
    stored["model"]["vocab"] |= {"<image>": image}
    (folder / "tokenizer.json").write_text(json.dumps(stored))
    shutil.copy(NANO / "tokenizer_config.json", folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    shutil.copytree(CHECKPOINT, tmp_path / "weights")
    tokenizer(tmp_path / "weights", 500)
    return tmp_path / "weights"


def official(folder: Path, dtype: str = "BF16", width: int = 2) -> Path:
    """A file with the official names, shapes and length; a hole instead of weights uses no disk space."""
    from model import DeepseekOCRConfig

    folder.mkdir()
    DeepseekOCRConfig().save_pretrained(folder)
    header, at = {}, 0
    for name, shape in json.loads(OFFICIAL.read_text()).items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    with (folder / "model-00001-of-000001.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)
    tokenizer(folder, DEEPSEEK_OCR.image_token_id)
    return folder


def test_a_whole_folder(folder):
    code, told = answer(folder)
    assert (code, told["usable"], told["verdict"]) == (0, True, "complete")
    assert [line["status"] for line in told["rows"]] == ["OK"] * 7
    assert (told["tensors"], told["dtypes"], told["official"]) == (192, ["float32"], False)
    assert told["files"] == {WEIGHTS: (CHECKPOINT / WEIGHTS).stat().st_size}
    code, printed = call(folder)
    assert code == 0 and printed.rstrip().endswith("Verdict: complete")
    assert "192 names and shapes" in printed


def test_the_official_folder_is_recognised(tmp_path):
    code, told = answer(official(tmp_path / "deepseek-ocr"))
    assert (code, told["verdict"]) == (0, "complete, the official network")
    assert (told["tensors"], told["bytes"], told["dtypes"]) == (
        DEEPSEEK_OCR.tensors, DEEPSEEK_OCR.bytes, [DEEPSEEK_OCR.dtype],
    )  # fmt: skip
    assert "at its official size" in row(told, "network")["seen"]


def test_an_fp32_copy_of_the_official_weights_is_recognised(tmp_path):
    code, told = answer(official(tmp_path / "copy", "F32", 4))
    assert (code, told["bytes"]) == (0, 2 * DEEPSEEK_OCR.bytes)
    assert "another dtype" in row(told, "network")["seen"]


def test_half_a_download_is_named_with_both_sizes(tmp_path):
    place = official(tmp_path / "half")
    path = next(place.glob("*.safetensors"))
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(3_000_000_000)
    code, told = answer(place)
    assert (code, told["verdict"]) == (1, "NOT usable: files")
    assert "3,000,000,000 bytes on disk" in row(told, "files")["seen"]
    assert f"{whole:,} expected" in row(told, "files")["seen"]


def drop_a_name(place):
    path = place / WEIGHTS
    path.write_bytes(path.read_bytes().replace(b"model.norm.weight", b"model.morn.weight", 1))


def write(name, content):
    return lambda place: (place / name).write_text(content)


FAULTS = {
    "no config": (lambda p: (p / "config.json").unlink(), "config", "config.json is missing"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), "files", "no *.safetensors here"),
    "pickles": (lambda p: (p / WEIGHTS).rename(p / "pytorch_model.bin"), "files", "refused"),
    "a name changed": (drop_a_name, "tensors", "1 missing: model.norm.weight"),
    "other sizes": (
        lambda p: (p / "config.json").write_text(
            (p / "config.json").read_text().replace('"vocab_size": 512', '"vocab_size": 513')
        ),
        "tensors",
        "expected [513, 96]",
    ),
    "damaged tokenizer": (write("tokenizer.json", "{"), "tokenizer", "damaged"),
    "tokenizer a pointer": (
        write("tokenizer.json", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "tokenizer",
        "git-lfs pointer",
    ),
    "tokenizer a list": (write("tokenizer.json", "[]"), "tokenizer", "damaged"),
    "foreign tokenizer": (lambda p: tokenizer(p, 7), "tokenizer", "<image> is 7, but config.json has 500"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_and_the_status_says_so(folder, fault):
    spoil, where, seen = FAULTS[fault]
    spoil(folder)
    code, told = answer(folder)
    assert (code, told["usable"]) == (1, False)
    assert told["verdict"] == f"NOT usable: {where}"
    assert row(told, where)["status"] == "FAIL" and seen in row(told, where)["seen"]
    assert row(told, where)["remedy"]
    code, printed = call(folder)
    assert code == 1 and seen in printed and f"Verdict: NOT usable: {where}" in printed


def test_integer_weights_are_refused(folder):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    code, told = answer(folder)
    assert code == 1 and "a quantised copy, which is not supported" in row(told, "dtype")["seen"]


def test_without_a_tokenizer_no_page_can_be_read(folder):
    (folder / "tokenizer.json").unlink()
    code, told = answer(folder)
    assert (code, told["verdict"]) == (1, "NOT usable: tokenizer")
    assert "tokenizer.json is missing" in row(told, "tokenizer")["seen"]


@pytest.mark.parametrize(
    "partial", [".cache/huggingface/download/abc.incomplete", "._____temp/model-00001-of-000001.safetensors"]
)
def test_an_unfinished_download_of_a_hub_is_seen(folder, partial):
    (folder / WEIGHTS).unlink()
    (folder / partial).parent.mkdir(parents=True)
    (folder / partial).write_bytes(b"half")
    code, told = answer(folder)
    assert code == 1 and "again to resume it" in row(told, "files")["remedy"]


def test_no_folder(tmp_path):
    code, told = answer(tmp_path / "nothing")
    assert code == 1 and "no such folder" in row(told, "config")["seen"]


def test_hashes_are_those_of_the_files(folder):
    _, told = answer(folder, "--hash")
    expected = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    assert told["sha256"] == expected and set(expected) > {"config.json", WEIGHTS}
    code, printed = call(folder, "--hash")
    assert code == 0 and f"{expected[WEIGHTS]}  {WEIGHTS}" in printed


def test_nothing_named_takes_the_variable(folder, monkeypatch):
    monkeypatch.setenv(weights.VARIABLE, str(folder))
    assert answer()[1]["folder"] == str(folder)
