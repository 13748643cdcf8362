"""Dumps of msProbe (mindstudio-probe): written from a run of our model, and read as one side of a comparison.

    write_dump(model, inputs, "dump_cpu")              # dump.json and dump_tensor_data/
    compare_dumps("dump_npu", "dump_cpu")              # the same figures as `msprobe compare`
    compare_with_dump(model, inputs, "dump_npu")       # a run here against a dump from elsewhere

The format is that of mindstudio-probe 26.2.0, task "tensor", level "mix". `msprobe compare` takes two such
folders; tests/compare/test_real_msprobe.py runs it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from model.files import write_json
from model.untrusted import UntrustedFile, open_regular, read_json_object, shown

from .ladder import runner
from .trace import Call, blocks_of, traced

FILE, TENSORS = "dump.json", "dump_tensor_data"
LIMIT = 256 << 20  # bytes of dump.json
TENSOR_LIMIT = 4 << 30
SIDES = ("input_args", "input_kwargs", "output")


class DumpError(ValueError):
    """A folder that is no dump, or a tensor of it that cannot be used; the message is one line."""


# ---------------------------------------------------------------------- writing
@torch.no_grad()
def write_dump(model: nn.Module, inputs, folder: str | Path, blocks: list[str] | None = None) -> Path:
    """Run a model and write the inputs and outputs of its blocks; returns the path of dump.json.

    Args:
        inputs: those of forward (dict, tuple, tensor), or a function that runs a model it is given.
        folder: made if it is missing; a dump that is there is replaced.
        blocks: paths of modules; None: the rungs of the ladder (trace.blocks_of).
    """
    folder = Path(folder)
    (folder / TENSORS).mkdir(parents=True, exist_ok=True)
    names = blocks or blocks_of(model)
    with traced(model, names, "none") as calls:
        runner(inputs)(model)
    data = {}
    for call in calls:
        kind = type(model.get_submodule(call.module)).__name__
        name = ".".join(part for part in ("Module", call.module, kind, "forward", str(call.turn)) if part)
        data[name] = _entry(name, call, folder / TENSORS)
    stored = {
        "task": "tensor",
        "level": "mix",
        "framework": "pytorch",
        "dump_data_dir": TENSORS,
        "data": data,
    }
    return write_json(folder / FILE, stored)


def _entry(name: str, call: Call, folder: Path) -> dict:
    made = call.output if isinstance(call.output, (tuple, list)) else (call.output,)
    return {
        "input_args": [_value(f"{name}.input.{i}", each, folder) for i, each in enumerate(call.args)],
        "input_kwargs": {
            key: _value(f"{name}.input.{key}", each, folder) for key, each in call.kwargs.items()
        },
        "output": [_value(f"{name}.output.{i}", each, folder) for i, each in enumerate(made)],
    }


def _value(name: str, value, folder: Path):
    """A tensor with its statistics and file, a number or text as it is, anything else by its type."""
    if isinstance(value, Tensor):
        file = f"{name}.pt"
        whole = value.detach().cpu().contiguous()
        torch.save(whole.clone(), folder / file)  # a clone: a view would store its whole base
        return {**statistics(whole), "requires_grad": value.requires_grad, "data_name": file}
    if isinstance(value, (tuple, list)):
        return [_value(f"{name}.{i}", each, folder) for i, each in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"type": type(value).__name__, "value": value}
    return {"type": type(value).__name__, "value": None}


def statistics(tensor: Tensor) -> dict:
    """Type, dtype, shape and the four figures of msProbe. None for what an empty tensor has not."""
    found: dict = {"type": "torch.Tensor", "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
    if tensor.numel() == 0:
        return {**found, "Max": None, "Min": None, "Mean": None, "Norm": None}
    if tensor.dtype == torch.bool:
        return {**found, "Max": bool(tensor.any()), "Min": bool(tensor.all()), "Mean": None, "Norm": None}
    wide = tensor.float() if tensor.is_floating_point() else tensor.double()
    figures = {"Max": wide.max(), "Min": wide.min(), "Mean": wide.mean(), "Norm": wide.norm()}
    return {**found, **{name: figure.item() for name, figure in figures.items()}}


# ---------------------------------------------------------------------- reading
@dataclass
class Dump:
    """A dump: {name of a tensor: its record}, in order. Tensors are read later."""

    folder: Path
    task: str
    records: dict[str, dict] = field(default_factory=dict)

    def tensor(self, name: str) -> Tensor | None:
        """The tensor, or None if the dump has statistics only. Raises DumpError."""
        file = self.records[name].get("data_name")
        if not isinstance(file, str):
            return None
        if Path(file).name != file or not file.endswith(".pt"):
            raise DumpError(f"{shown(self.folder)}: data_name {shown(file)!r} is not the name of a file here")
        path = self.folder / TENSORS / file
        try:
            with open_regular(path, TENSOR_LIMIT) as stream:
                found = torch.load(stream, map_location="cpu", weights_only=True)  # runs no code of the file
        except FileNotFoundError:
            raise DumpError(f"{shown(path)}: missing, though dump.json names it") from None
        except Exception as error:  # pickle, zip and torch each have their own
            reason = shown(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise DumpError(f"{shown(path)}: not a tensor ({reason})") from None
        if not isinstance(found, Tensor):
            raise DumpError(f"{shown(path)}: a {type(found).__name__}, not a tensor")
        return found.detach()


def read_dump(folder: str | Path) -> Dump:
    """Read dump.json of a folder, or a path of such a file. Raises DumpError."""
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    try:
        stored = read_json_object(path, LIMIT)
    except OSError as error:
        raise DumpError(f"{shown(path)}: {error.strerror or error}") from None
    except UntrustedFile as error:
        raise DumpError(str(error)) from None
    data = stored.get("data")
    if not isinstance(data, dict) or stored.get("framework", "pytorch") != "pytorch":
        raise DumpError(f"{shown(path)}: no dump of msProbe for PyTorch (data and framework are expected)")
    dump = Dump(path.parent, str(stored.get("task", "")))
    for name, entry in data.items():
        if isinstance(entry, dict):
            dump.records.update(_records(name, entry))
    if not dump.records:
        raise DumpError(f"{shown(path)}: the dump has no tensor")
    return dump


def _records(name: str, entry: dict) -> Iterator[tuple[str, dict]]:
    """(name.input.0, record) … of every tensor of a call."""
    for side in SIDES:
        found, word = entry.get(side), "output" if side == "output" else "input"
        items = (
            found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list) else ())
        )
        for key, value in items:
            yield from _nested(f"{name}.{word}.{key}", value)


def _nested(name: str, value) -> Iterator[tuple[str, dict]]:
    if isinstance(value, list):
        for i, each in enumerate(value):
            yield from _nested(f"{name}.{i}", each)
    elif isinstance(value, dict) and value.get("type") == "torch.Tensor":
        yield name, value


# ---------------------------------------------------------------------- comparing
@dataclass(frozen=True)
class DumpRow:
    """One tensor of two dumps, in the figures of msProbe. None: the dump has no tensor, or they do not fit.

    cosine: of the flattened values. euclid: norm of the difference. largest, largest_relative: of the
    absolute difference, and of it over the reference's absolute value. within: shares of values within
    1/1000 and 5/1000 of the reference.
    """

    name: str
    cosine: float | None = None
    euclid: float | None = None
    largest: float | None = None
    largest_relative: float | None = None
    within: tuple[float, float] | None = None
    problem: str = ""


def compare_dumps(candidate: str | Path, reference: str | Path) -> list[DumpRow]:
    """Compare two dumps tensor by tensor, in the order of the reference. Raises DumpError."""
    ours, theirs = read_dump(candidate), read_dump(reference)
    return [_row(name, ours, theirs) for name in theirs.records]


def compare_with_dump(model: nn.Module, inputs, reference: str | Path, folder: str | Path) -> list[DumpRow]:
    """Run a model here, write its dump into `folder`, and compare it with a dump from elsewhere."""
    write_dump(model, inputs, folder)
    return compare_dumps(folder, reference)


def _row(name: str, ours: Dump, theirs: Dump) -> DumpRow:
    if name not in ours.records:
        return DumpRow(name, problem="not in the other dump")
    a, b = ours.tensor(name), theirs.tensor(name)
    if a is None or b is None:
        return DumpRow(name, problem=_by_statistics(ours.records[name], theirs.records[name]))
    if a.shape != b.shape:
        return DumpRow(name, problem=f"shape {tuple(a.shape)}, expected {tuple(b.shape)}")
    if a.dtype != b.dtype:
        return DumpRow(name, problem=f"dtype {a.dtype}, expected {b.dtype}")
    return figures(name, a, b) if a.numel() else DumpRow(name, problem="empty")


def figures(name: str, a: Tensor, b: Tensor) -> DumpRow:
    """The figures of msProbe (mindstudio-probe 26.2.0, core/compare/algorithm/builtin_algorithm)."""
    x, y = a.flatten().double(), b.flatten().double()
    away = (x - y).abs()
    eps = torch.finfo(torch.promote_types(b.dtype, torch.float32)).eps  # as there, where the reference is 0
    relative = away / torch.where(y == 0, eps, y.abs())
    scale = x.norm() * y.norm()
    cosine = (
        1.0 if not float(scale) and torch.equal(x, y) else float(x @ y / scale) if float(scale) else math.nan
    )
    within = float((relative < 0.001).double().mean()), float((relative < 0.005).double().mean())
    return DumpRow(name, cosine, float(away.norm()), float(away.max()), float(relative.max()), within)


def _by_statistics(a: dict, b: dict) -> str:
    """For dumps without tensors: whether the four figures are equal, as text."""
    away = [
        f"{key} {a.get(key)} and {b.get(key)}" for key in ("shape", "dtype", "Max", "Min", "Mean", "Norm")
        if a.get(key) != b.get(key)
    ]  # fmt: skip
    return "statistics only: " + ("; ".join(away) if away else "equal")
