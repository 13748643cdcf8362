"""Record one page under the profiler of its device, in a folder that `read_trace` reads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import torch

from model.files import write_json

from .. import simulator
from ..device import describe_device, is_simulated, synchronize
from ..device.dtypes import dtype_name
from ..opcount import definition
from ..opcount.operator_mode import OperatorMode, tensors
from ..operators.substitutes.cases import ANY, ByCase
from ..operators.substitutes.registry import SLOTS, candidates
from ..reading.reader import Reader
from .folder import ABOUT, read_trace
from .kernels import AI_CPU, Kernel, Trace
from .vendor import write_vendor

WORKER = "deskocr"  # in the folder's name, where the profiler would put the name of the host
TOKENS = 32


def profile_page(
    reader: Reader, image, folder: str | Path, mode: str | None = None, tokens: int = TOKENS
) -> Trace:
    """Read a page once to warm up, then once under the profiler; returns the trace that was written.

    Args:
        image: a PIL image.
        folder: where the profiler writes; made if it is missing.
        mode: as in Reader.read.
        tokens: the most tokens to generate. A trace grows with each token, and they all look alike.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = reader.model.device

    def read():
        return reader.read(image, "free", mode=mode, max_new_tokens=tokens)

    read()
    synchronize(device)
    profiler = _profiler(device)
    begin = time.perf_counter()
    with profiler(folder):
        reading = read()
        synchronize(device)
    write_json(
        folder / ABOUT,
        {
            "device": describe_device(device),
            "simulated": is_simulated(device),
            "checkpoint": reader.name,
            "dtype": dtype_name(reader.model.dtype),
            "mode": mode or reader.settings.get("mode"),
            "tokens": len(reading.ids),
            "seconds_with_profiler": round(time.perf_counter() - begin, 3),
            "slots": slots_of(reader.model),
            "times": _what_times(device),
        },
    )
    return read_trace(folder)


def slots_of(model) -> dict[str, str]:
    """{slot: name of the candidate that runs}; unknown ones are left out."""
    found = {}
    for slot, function in vars(model.slots).items():
        if slot not in SLOTS:
            continue
        if isinstance(function, ByCase):
            found[slot] = function.names[ANY]
        for name, candidate in candidates(slot).items():
            if candidate is function:
                found[slot] = name
    return found


def _what_times(device) -> str:
    if is_simulated(device):
        return "host time of a simulated NPU: no time in this folder is an NPU's"
    return "CPU time of operators" if device.type == "cpu" else "time of kernels on the device"


def _profiler(device):
    if is_simulated(device):
        return _simulated
    return {"cpu": _cpu, "cuda": _cuda, "npu": _npu}[device.type]


@contextlib.contextmanager
def _npu(folder: Path) -> Iterator[None]:
    import torch_npu

    p = torch_npu.profiler
    how = p._ExperimentalConfig(profiler_level=p.ProfilerLevel.Level1, export_type=[p.ExportType.Text])
    with p.profile(
        activities=[p.ProfilerActivity.CPU, p.ProfilerActivity.NPU],
        on_trace_ready=p.tensorboard_trace_handler(str(folder), worker_name=WORKER),
        record_shapes=True,
        experimental_config=how,
    ):
        yield


def _quiet() -> None:
    """Without this, the library below torch.profiler prints two lines of its own on stderr."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")


@contextlib.contextmanager
def _cuda(folder: Path) -> Iterator[None]:
    _quiet()
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA], record_shapes=True) as found:
        yield
    found.export_chrome_trace(str(folder / "torch_trace.json"))


@contextlib.contextmanager
def _cpu(folder: Path) -> Iterator[None]:
    _quiet()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        yield
    file = folder / "torch_trace.json"
    found.export_chrome_trace(str(file))
    write_vendor(read_trace(file).kernels, folder, "a CPU, not an NPU")


@contextlib.contextmanager
def _simulated(folder: Path) -> Iterator[None]:
    with simulator.record() as record, _Timed(record) as mode:
        yield
    rows = [
        {**row, "site": "/".join(row["site"].split("/")[-2:])} for row in record.rows()
    ]  # no local folders
    write_json(
        folder / "simulator_record.json", {"simulated": True, "summary": record.summary(), "rows": rows}
    )
    write_vendor(mode.kernels, folder, "simulated, not an NPU")


class _Timed(OperatorMode):
    """The launches on the simulated NPU with the time that the host needed for them."""

    def __init__(self, record):
        super().__init__()
        self.record, self.kernels = record, []

    def answer(self, name, function, args, kwargs):
        slow, left, start = self.record.ai_cpu, self.record.fallbacks, time.perf_counter_ns()
        output = super().answer(name, function, args, kwargs)
        took = time.perf_counter_ns() - start
        given, made = list(tensors((args, kwargs))), list(tensors(output))
        on_device = self.record.fallbacks == left  # else the host's CPU computed it
        if on_device and definition.kind(name, function._schema, given, made, "npu") == "launch":
            core = AI_CPU if self.record.ai_cpu > slow else "AI_CORE"
            us, begin = Decimal(took) / 1000, Decimal(start) / 1000
            self.kernels.append(Kernel(name, name, us, core, begin, operator=name))
        return output

    def seen(self, name, function, args, kwargs, output) -> None: ...
