"""Model folders: complete, half-downloaded, with pointers, pickles or foreign indices."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from deskocr_kit.doctor import rules_model


def shard(path: Path, tensors: dict[str, int]) -> None:
    """A safetensors file of uint8 tensors: name -> number of bytes."""
    table, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in tensors.items():
        table[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(at))


ONE, TWO = (f"model-0000{i}-of-000002.safetensors" for i in (1, 2))
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path) -> Path:
    shard(tmp_path / ONE, {"a": 10, "b": 20})
    shard(tmp_path / TWO, {"c": 30})
    weight_map = {"a": ONE, "b": ONE}
    weight_map["c"] = TWO
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deepseek_vl_v2"}))
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def check(folder: Path, needed: bool = True):
    return rules_model.check(folder, "weights", needed)


def test_a_whole_folder(folder):
    row = check(folder)
    assert row.status == "OK" and "2 file(s)" in row.seen


def test_half_downloaded(folder):
    path = folder / TWO
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    row = check(folder)
    assert row.status == "FAIL" and f"{whole - 7} bytes" in row.seen and str(whole) in row.seen
    path.write_bytes(path.read_bytes()[:5])
    assert "header is damaged" in check(folder).seen


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / TWO).unlink(), f"are missing: {TWO}"),
        (
            lambda f: (f / ONE).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "a git-lfs pointer",
        ),
        (lambda f: shard(f / ONE, {"a": 10}), "1 tensors that are not in their file: b"),
        (lambda f: (f / INDEX).write_text("{"), "index.json: not a valid index"),
        (
            lambda f: (f / INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}'),
            "leads out of the folder",
        ),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("[1]"), "a JSON list, expected an object"),
        (lambda f: (f / "config.json").write_text('{"a": 1}'), "does not describe a model"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "another model"),
        (
            lambda f: (f / "config.json").write_text('{"hidden_size": 8, "scoring_func": "sigmoid"}'),
            "scoring_func",
        ),
        (lambda f: (f / ONE).write_bytes(struct.pack("<Q", 4) + b"[{}]"), "header is damaged"),
    ],
)
def test_faults_are_named(folder, spoil, said):
    spoil(folder)
    row = check(folder)
    assert row.status == "FAIL" and said in row.seen and row.remedy


def test_absent_pickles_and_tokenizer(folder, tmp_path):
    assert check(tmp_path / "nowhere").status == "FAIL"
    assert check(tmp_path / "nowhere", needed=False).status == "SKIP"
    old = tmp_path / "old"
    old.mkdir()
    (old / "pytorch_model.bin").write_bytes(b"\x80\x04")
    row = check(old, needed=False)
    assert row.status == "FAIL" and "pickles" in row.seen
    (folder / "tokenizer.json").unlink()
    assert check(folder).status == "WARN"


def test_the_folder_that_every_command_would_take_is_looked_at(folder, monkeypatch):
    """$DESKOCR_MODEL and the names for --model have the same meaning in doctor as in `ocr`."""
    (folder / TWO).unlink()
    monkeypatch.setenv("DESKOCR_MODEL", str(folder))
    first, *usual = rules_model.rules(SimpleNamespace(live=True, model=None))
    assert (first.name, first.status) == ("$DESKOCR_MODEL", "FAIL") and f"missing: {TWO}" in first.seen
    assert [row.name for row in usual] == ["nano checkpoint", "official weights"]
    (row,) = rules_model.rules(SimpleNamespace(live=True, model=Path("nano")))
    assert row.status == "OK" and "complete" in row.seen


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "nested", "digits"])
def test_what_is_no_file_or_no_sane_json_is_a_fault_and_no_hang(tmp_path, name, kind):
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    odd = tmp_path / name
    odd.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    else:
        text = "[" * 100_000 if kind == "nested" else '{"a": ' + "9" * 10_000 + "}"
        odd.write_bytes(len(text).to_bytes(8, "little") * name.endswith("s") + text.encode())
    row = rules_model.check(tmp_path, "model folder", needed=True)
    assert row.status == "FAIL" and "\n" not in row.seen and len(row.seen) < 600
