"""Folders of weights that strangers might give: broken, hostile, or something else than weights."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from tests.helpers.paths import NANO

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILES = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "generation_config.json")


def copy_of_nano(folder: Path) -> Path:
    """A small folder that is complete."""
    folder.mkdir()
    for name in FILES:
        shutil.copy(NANO / name, folder)
    return folder


def change(folder: Path, name: str, **keys) -> None:
    """Set keys of a JSON file."""
    path = folder / name
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, **keys}), encoding="utf-8")


def header_of(folder: Path) -> tuple[dict, bytes]:
    raw = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_header(folder: Path, header: object, data: bytes | None = None, name: str = WEIGHTS) -> None:
    """Write a safetensors file with any JSON value, or bytes, as its header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    data = header_of(folder)[1] if data is None else data
    (folder / name).write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def edit_header(edit: Callable[[dict], object]) -> Callable[[Path], None]:
    """A fault: `edit` changes the header of the weights in place, or returns another."""

    def spoil(folder: Path) -> None:
        header, data = header_of(folder)
        with_header(folder, edit(header) or header, data)

    return spoil


def rename_tensors(rename: Callable[[str], str]) -> Callable[[Path], None]:
    kept = "__metadata__"
    return edit_header(lambda header: {n if n == kept else rename(n): item for n, item in header.items()})


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw) and None


def set_keys(name: str, **keys) -> Callable[[Path], None]:
    return lambda folder: change(folder, name, **keys)


def replaced_by(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A fault: the file is gone, and `make(path)` puts something else there."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return spoil


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def dangling(path: Path) -> None:
    path.symlink_to("../blobs/0123abcd")


def directory(path: Path) -> None:
    path.mkdir()


def sparse(path: Path, size: int = 1 << 40) -> None:
    with path.open("wb") as file:
        file.truncate(size)


#: Texts in place of JSON: none is a traceback, none takes long.
NOT_JSON: dict[str, str | bytes] = {
    "empty": "",
    "half": '{"a": ',
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "text": '"x"',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "NaN": '{"a": NaN}',
    "a huge number": '{"a": ' + "9" * 100_000 + "}",
    "nested lists": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a key twice": '{"hidden_size": 1, "hidden_size": 2}',
    "control characters": '{"a": "\x00\x1b[31m"}',
    "a web page": "<!doctype html><html>404</html>",
    "a git-lfs pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}
