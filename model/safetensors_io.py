"""Read and write safetensors files one tensor at a time.

The safetensors library is not used: its reader maps the file, so that every page read counts as memory in
addition to the model, and its writer holds a second copy of all tensors. A file of 6.7 GB must cost one
tensor of additional memory, not 6.7 GB. weight_files.py describes the format and reads the headers.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .weight_files import DTYPES, CheckpointError, Entry, read_header

__all__ = ["CheckpointError", "Entry", "Region", "read_header", "read_into", "write_file"]

DTYPE_NAMES = {getattr(torch, dtype): name for name, (dtype, _) in DTYPES.items()}


@dataclass(frozen=True)
class Region:
    """Part of a matrix: `count` rows (dim 0) or columns (dim 1) from `start` on."""

    dim: int
    start: int
    count: int


def read_into(entry: Entry, file, target: Tensor, region: Region | None = None) -> None:
    """Copy the tensor at `entry` (its file is open as `file`) to `target`, converting dtype and device.

    Bytes are read directly into the memory of the target where possible. region: the part that is read, and
    no byte beside it; None: all of it.
    """
    dtype = getattr(torch, entry.dtype)
    direct = target.device.type == "cpu" and target.dtype == dtype and target.is_contiguous()
    shape = entry.shape
    if region is not None:
        shape = (*shape[: region.dim], region.count, *shape[region.dim + 1 :])
    buffer = target if direct else torch.empty(shape, dtype=dtype)
    memory = memoryview(as_bytes(buffer))
    for start, size in pieces(entry, region):
        piece, memory = memory[:size], memory[size:]
        if size and read_at(file, entry.start + start, piece) != size:
            raise CheckpointError(f"{entry.path}: tensor {entry.name} ends early. Download the file again.")
    if not direct:
        target.copy_(buffer)


def pieces(entry: Entry, region: Region | None) -> Iterator[tuple[int, int]]:
    """(start, bytes) of each contiguous piece of a region, counted from the start of the tensor."""
    if region is None:
        yield 0, entry.size
    elif region.dim == 0:
        row = entry.size // entry.shape[0]
        yield region.start * row, region.count * row
    else:
        rows, columns = entry.shape
        item = entry.size // (rows * columns)
        for row in range(rows):
            yield (row * columns + region.start) * item, region.count * item


def read_at(file, at: int, memory: memoryview) -> int:
    """Fill `memory` from position `at` of a file; returns the number of bytes that were there.

    Not through the buffer of the file, which reads ahead: a column of a matrix is many small pieces.
    """
    if not hasattr(os, "preadv"):
        file.seek(at)
        return file.readinto(memory)
    done = 0
    while done < len(memory) and (count := os.preadv(file.fileno(), [memory[done:]], at + done)):
        done += count
    return done


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
