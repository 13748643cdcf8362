"""The safetensors files of a folder: which tensors they hold, and where. Reads headers only. No torch here.

The format of a file: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
raw data. The header implies the length of the file, so a wrong or half-downloaded file is found without
reading its data. Everything that is read here may be foreign: names, numbers and sizes are limited.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from .untrusted import UntrustedFile, is_regular, open_regular, parse_json, read_json_object, shown

INDEX = "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHOWN = 5  # names shown per kind of fault

#: {name in a header: (name in torch, bytes per value)}
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
# The largest official header has 0.4 MB (2710 tensors). The limits bound the time of `weights check`.
HEADER_BYTES = 16 << 20  # of one file
FOLDER_HEADER_BYTES = 16 << 20  # of all files of a folder
TENSORS = 100_000  # of a folder
DIMENSIONS, LARGEST_SIDE = 8, 1 << 48
FILES_IN_FOLDER = 10_000  # names of a folder that are looked at


class CheckpointError(ValueError):
    """A weight folder or file that cannot be used; the message states file, problem and remedy."""


@dataclass(frozen=True)
class Entry:
    """The location of one tensor: `start` is a byte offset in `path`, `dtype` is torch's name for it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int
    size: int

    @property
    def is_floating(self) -> bool:
        return self.dtype.startswith(("float", "bfloat"))


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file, without reading their data.

    Raises:
        CheckpointError: the file is missing, not safetensors, or shorter or longer than its header says; or
            its tensors do not follow each other without gaps.
    """
    path = Path(path)
    where = shown(path)
    try:
        with open_regular(path) as file:
            total = os.fstat(file.fileno()).st_size
            start = file.read(8)
            refuse_other_formats(where, start)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if length > min(HEADER_BYTES, max(0, total - 8)):
                raise UntrustedFile(f"{where}: a header of {length:,} bytes in a file of {total:,}")
            raw = file.read(length)
        header = parse_json(raw.decode("utf-8"), where, depth=4)
        if not isinstance(header, dict):
            raise UntrustedFile(f"{where}: the header is a JSON {type(header).__name__}, not an object")
    except FileNotFoundError:
        raise CheckpointError(f"{where}: {absent(path)}. Download it again (see model/README.md).") from None
    except OSError as error:
        raise CheckpointError(f"{where}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError:
        raise CheckpointError(damaged(where, "it is not text in UTF-8")) from None
    except UntrustedFile as error:
        raise CheckpointError(damaged(where, str(error).removeprefix(f"{where}: "))) from None
    base = 8 + length
    entries = {
        name: entry_of(path, base, name, item) for name, item in header.items() if name != "__metadata__"
    }
    end = base
    for entry in sorted(entries.values(), key=lambda each: (each.start, each.size)):
        if entry.start != end:
            what = "overlaps the one before it" if entry.start < end else "leaves a gap before it"
            raise CheckpointError(damaged(where, f"tensor {shown(entry.name)} {what}"))
        end += entry.size
    if total != end:
        what = "half-downloaded" if total < end else "longer than its header says"
        raise CheckpointError(
            f"{where}: {what}: {total:,} bytes on disk, {end:,} expected. Resume or repeat the download."
        )
    return entries


def refuse_other_formats(where: str, start: bytes) -> None:
    """Raise CheckpointError if the first 8 bytes of a file belong to a format that is easy to recognise."""
    if start == b"version ":
        raise CheckpointError(
            f"{where}: this is a git-lfs pointer, not the weights. "
            "Run `git lfs pull`, or download the file again."
        )
    if start.lower().startswith((b"<!doctyp", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{where}: not a safetensors file but a web page, perhaps an error page of a hub. "
            "Open it to read the reason, then download the file again."
        )
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"\x80\x05")):
        raise CheckpointError(
            f"{where}: a pickle under the name of a safetensors file. Pickles can run code when opened and "
            "are refused; download the .safetensors files."
        )


def entry_of(path: Path, base: int, name: str, item: Any) -> Entry:
    """The tensor that one item of a header describes. Raises CheckpointError for a wrong field."""
    where, called = shown(path), shown(name, 80)
    if not isinstance(item, dict):
        raise CheckpointError(damaged(where, f"{called} is described by a JSON {type(item).__name__}"))
    kind: Any = item.get("dtype")
    shape: Any = item.get("shape")
    offsets: Any = item.get("data_offsets")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(
            f"{where}: tensor {called} has dtype {shown(str(kind), 40)}, which is not supported. "
            f"Supported: {', '.join(DTYPES)}."
        )
    if not is_counts(shape, DIMENSIONS) or not is_counts(offsets, 2) or len(offsets) != 2:
        raise CheckpointError(
            damaged(where, f"{called} has offsets {brief(offsets)} for shape {brief(shape)}")
        )
    dtype, size = DTYPES[kind]
    for side in shape:
        size *= side
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(
            damaged(where, f"{called} has offsets {offsets[0]}..{offsets[1]} for shape {shape}")
        )
    return Entry(name, dtype, tuple(shape), path, base + offsets[0], size)


def is_counts(value, length: int) -> bool:
    """Whether a JSON value is a list of at most `length` whole numbers from 0. 1.0 and true are none."""
    return (
        isinstance(value, list)
        and len(value) <= length
        and all(type(each) is int and 0 <= each <= LARGEST_SIDE for each in value)
    )


def brief(value) -> str:
    return shown(str(value), 60)


def damaged(where: str, why: str) -> str:
    return f"{where}: not a safetensors file, or its header is damaged ({why}). Download it again."


def absent(path: Path) -> str:
    """Why a path does not lead to a file: "no such file", or "a link without a target (…)"."""
    try:
        return f"a link without a target ({shown(os.readlink(path))})"
    except OSError:
        return "no such file"


def names_in(folder: Path) -> list[str]:
    """The sorted names in a folder, at most FILES_IN_FOLDER of them. Raises CheckpointError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, FILES_IN_FOLDER))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{shown(folder)}: the folder cannot be read ({reason}).") from None


def find_tensors(folder: Path) -> dict[str, Entry]:
    """Every tensor in the safetensors files of a folder, by name. Reads only the headers.

    With an index, the files that it names; without, every *.safetensors of the folder except left-overs of
    macOS (`._*`), see `left_overs`.

    Raises:
        CheckpointError: no weights, only pickles, a missing shard, a damaged or half-downloaded file, one
            name in two files, or more headers than are read.
    """
    folder = Path(folder)
    names = names_in(folder)
    weight_map = read_index(folder) if INDEX in names else None
    if weight_map is None:
        paths = [folder / name for name in names if is_weights(name)]
        if not paths:
            raise CheckpointError(no_weights(folder, names))
    else:
        paths = [folder / name for name in sorted(set(weight_map.values()))]
        if lost := [path for path in paths if not path.exists()]:
            raise CheckpointError(lost_shards(folder, names, paths, lost))
    entries: dict[str, Entry] = {}
    budget = FOLDER_HEADER_BYTES
    for path in paths:
        budget -= header_bytes(path)
        if budget < 0:
            raise CheckpointError(
                f"{shown(folder)}: the headers of its {len(paths)} weight files have more than "
                f"{FOLDER_HEADER_BYTES >> 20} MiB. The official one has 0.4 MB: this is another model."
            )
        for name, entry in read_header(path).items():
            if name in entries:
                raise CheckpointError(
                    f"{shown(folder)}: tensor {shown(name, 80)} is in {entries[name].path.name} and in "
                    f"{path.name}. Keep one of the files."
                )
            entries[name] = entry
        if len(entries) > TENSORS:
            raise CheckpointError(
                f"{shown(folder)}: more than {TENSORS:,} tensors. The official network has 2,710: this is "
                "another model."
            )
    if weight_map is not None and (
        wrong := [n for n, file in weight_map.items() if n not in entries or entries[n].path.name != file]
    ):
        raise CheckpointError(
            f"{shown(folder)}: {INDEX} names {len(wrong)} tensors that are not in their file: {some(wrong)}. "
            "The index belongs to other files: download both again."
        )
    return entries


def header_bytes(path: Path) -> int:
    """The length of a header as its file states it, at most HEADER_BYTES; 0 if there is none to read."""
    try:
        with open_regular(path) as file:
            start = file.read(8)
    except (OSError, UntrustedFile):
        return 0
    return min(HEADER_BYTES, struct.unpack("<Q", start)[0]) if len(start) == 8 else 0


def is_weights(name: str) -> bool:
    return name.endswith(".safetensors") and not name.startswith("._")


def read_index(folder: Path) -> dict[str, str]:
    """{tensor name: file name} of the index. Raises CheckpointError if it is damaged or leads elsewhere."""
    path = folder / INDEX
    try:
        weight_map = read_json_object(path).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise UntrustedFile('"weight_map" is not an object with entries')
        for name in set(map(str, weight_map.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise UntrustedFile(
                    f"{shown(name)} is not the name of a safetensors file, or leads out of the folder"
                )
        if not all(isinstance(each, str) for each in weight_map.values()):
            raise UntrustedFile("a file name is not text")
    except FileNotFoundError:
        raise CheckpointError(f"{shown(path)}: {absent(path)}. Download it again, or delete it.") from None
    except (OSError, UntrustedFile) as error:
        why = str(getattr(error, "strerror", None) or error).removeprefix(f"{shown(path)}: ")
        raise CheckpointError(f"{shown(path)}: not a valid index ({why}). Copy it again.") from None
    return weight_map


def lost_shards(folder: Path, names: list[str], paths: list[Path], lost: list[Path]) -> str:
    """The message for files that the index names and the folder lacks: an old index, links, a download."""
    here = f"{shown(folder)}: "
    whole = [name for name in names if is_weights(name) and folder / name not in paths]
    if len(lost) == len(paths) and whole:
        return (
            f"{here}{INDEX} is a left-over: it names {some([path.name for path in lost])}, which are not "
            f"here, and does not name {some(whole)}. Delete {INDEX}."
        )
    if links := [path.name for path in lost if os.path.islink(path)]:
        return (
            f"{here}{len(links)} of {len(paths)} weight files are links without a target: {some(links)}. "
            "Copy the files themselves (`cp -L`), not the links of a hub's cache."
        )
    return (
        f"{here}{len(lost)} of {len(paths)} weight files named by {INDEX} are missing: "
        f"{some([path.name for path in lost])}. Resume the download."
    )


def no_weights(folder: Path, names: list[str]) -> str:
    """The message for a folder without *.safetensors: what it contains instead."""
    here = f"{shown(folder)}: "
    if partial := [name for name in names if name.endswith((".part", ".incomplete"))]:
        return f"{here}the download is not finished ({shown(partial[0])}). Resume it."
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        return (
            f"{here}only pickled weights ({shown(pickles[0])}). They can run code when opened and are "
            "refused; download the .safetensors files."
        )
    if gguf := [name for name in names if name.endswith(".gguf")]:
        return f"{here}weights of llama.cpp ({shown(gguf[0])}), which are not supported; get the original."
    return f"{here}no *.safetensors here. model/README.md says how to get the weights."


def left_overs(folder: Path, used: set[str]) -> Iterator[str]:
    """Remarks about files of a folder that look like weights and are not used; `used`: names that are."""
    for name in names_in(folder):
        path, called = folder / name, shown(name)
        if name in used or not name.endswith((".safetensors", INDEX)):
            continue
        if name.startswith("._"):
            yield f"{called} is a left-over of macOS and is ignored; delete it"
        elif not path.exists():
            yield f"{called} is {absent(path)} and is ignored; delete it"
        elif not is_regular(path):
            yield f"{called} is not a regular file and is ignored"
        elif name != INDEX:
            yield f"{called} is not named by {INDEX} and is ignored; delete it, or delete an old index"


def some(names: list[str]) -> str:
    """The first few names, for a message."""
    listed = ", ".join(shown(name, 80) for name in names[:SHOWN])
    return listed + (", …" if len(names) > SHOWN else "")
