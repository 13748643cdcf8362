"""Read and write safetensors files one tensor at a time.

The safetensors library is not used: its reader maps the file, so that every page read counts as memory in
addition to the model, and its writer holds a second copy of all tensors. A file of 6.7 GB must cost one
tensor of additional memory, not 6.7 GB.
The format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, raw data.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
HEADER_LIMIT = 100_000_000  # bytes; the limit that the format sets


class CheckpointError(ValueError):
    """A weight folder or file that cannot be used; the message states file, problem and remedy."""


@dataclass(frozen=True)
class Entry:
    """The location of one tensor: `start` is a byte offset in `path`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    path: Path
    start: int
    size: int


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file, without reading their data.

    Raises:
        CheckpointError: the file is missing, not safetensors, or shorter than its header says.
    """
    path = Path(path)
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start == b"version ":
                raise CheckpointError(
                    f"{path}: this is a git-lfs pointer, not the weights. "
                    "Run `git lfs pull`, or download the file again."
                )
            if start.lower().startswith((b"<!doctyp", b"<html", b"<?xml")):
                raise CheckpointError(
                    f"{path}: not a safetensors file but a web page, perhaps an error page of a hub. "
                    "Open it to read the reason, then download the file again."
                )
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER_LIMIT
            raw = file.read(length) if length < min(HEADER_LIMIT, total) else b""
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file. Download it again (see model/README.md).") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        header = json.loads(raw)
        base = 8 + length
        entries = {}
        for name, item in header.items():
            if name == "__metadata__":
                continue
            begin, end = item["data_offsets"]
            shape = tuple(int(side) for side in item["shape"])
            if item["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{path}: tensor {name} has dtype {item['dtype']}, which is not supported. "
                    f"Supported: {', '.join(DTYPES)}."
                )
            dtype = DTYPES[item["dtype"]]
            count = 1
            for side in shape:
                count *= side
            if begin < 0 or min(shape, default=0) < 0 or end - begin != count * dtype.itemsize:
                raise ValueError(f"{name} has offsets {begin}..{end} for shape {list(shape)}")
            entries[name] = Entry(name, dtype, shape, path, base + begin, end - begin)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: not a safetensors file, or its header is damaged ({error}). Download it again."
        ) from error
    needed = max((entry.start + entry.size for entry in entries.values()), default=base)
    if total != needed:
        what = "half-downloaded" if total < needed else "longer than its header says"
        raise CheckpointError(
            f"{path}: {what}: {total:,} bytes on disk, {needed:,} expected. Resume or repeat the download."
        )
    return entries


def read_into(entry: Entry, file, target: Tensor) -> None:
    """Copy the tensor at `entry` (its file is open as `file`) to `target`, converting dtype and device.

    Bytes are read directly into the memory of the target where possible.
    """
    file.seek(entry.start)
    direct = target.device.type == "cpu" and target.dtype == entry.dtype and target.is_contiguous()
    buffer = target if direct else torch.empty(entry.shape, dtype=entry.dtype)
    if entry.size and file.readinto(memoryview(as_bytes(buffer))) != entry.size:
        raise CheckpointError(f"{entry.path}: tensor {entry.name} ends early. Download the file again.")
    if not direct:
        target.copy_(buffer)


def as_bytes(tensor: Tensor):
    """The memory of a contiguous CPU tensor as a numpy byte array."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy()


def write_file(
    path: Path, tensors: Iterable[tuple[str, Tensor]], metadata: dict[str, str] | None = None
) -> int:
    """Write (name, tensor) pairs one after another, atomically. Returns the number of data bytes."""
    tensors = list(tensors)
    header: dict = {"__metadata__": metadata or {"format": "pt"}}
    offset = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # data starts at a multiple of 8
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for _, tensor in tensors:
            file.write(memoryview(as_bytes(tensor.detach().cpu().contiguous())))
    os.replace(part, path)
    return offset
