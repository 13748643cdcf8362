"""Run every probe with every candidate; measure error, time, launches, waits and memory."""

from __future__ import annotations

import json
import statistics
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ...device import DeviceError, Timer, free_cache, is_simulated, synchronize
from ...device.counting import Counts, counted
from ...device.dtypes import dtype_name
from ...device.tolerances import relative_error
from ..kernels.launch import KERNEL, Launch, interpreted, listening, why_not
from ..substitutes.cases import case_of
from ..substitutes.registry import candidates
from ..substitutes.self_check import NeedsTorchNpu
from .probes import Probe

ROOT = f"{Path(__file__).parents[3]}/"  # a path of this machine, which reports leave out
BUDGETS = Path(__file__).with_name("budgets.json")
SAMPLE_SECONDS = 2e-3  # one timed sample is at least this long, so the clock's resolution does not matter
SLOW = 1.0  # a call beyond this is timed once

NEEDS_NPU = "an operator of torch_npu; needs an NPU"
PASS, OVER, WRONG, SILENT, CANNOT = "pass", "over budget", "wrong", "no error raised", "cannot run here"


@dataclass
class Row:
    """One candidate on one probe in one dtype. Only real probes that passed have `seconds` and `ratio`."""

    slot: str
    candidate: str
    probe: str
    case: str
    dtype: str
    real: bool
    verdict: str = PASS
    why: str = ""
    error: float | None = None
    budget: float | None = None
    seconds: float | None = None
    ratio: float | None = None  # to the reference on this device, measured in turn with it; < 1 is faster
    spread: float | None = None  # of the samples: (third - first quartile) / median
    launches: int | None = None
    syncs: int | None = None
    h2d_bytes: int | None = None
    d2h_bytes: int | None = None
    fallbacks: int | None = None
    ai_cpu: int | None = None
    extra_bytes: int | None = None
    kernels: list[str] = field(default_factory=list)  # the kit's own kernels that the call started

    def note(self, counts: Counts) -> None:
        vars(self).update(asdict(counts))


def budgets() -> dict[str, dict]:
    """{slot: {dtype name: largest relative error, "reason": …}}."""
    return json.loads(BUDGETS.read_text(encoding="utf-8"))["slots"]


def run_probe(
    probe: Probe,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
    repeats: int = 7,
    skip_npu=True,
) -> list[Row]:
    """One row per candidate."""
    name = dtype_name(dtype)
    # The seed depends on the probe's name, so that a new probe does not change the numbers of others.
    generator = torch.Generator().manual_seed(seed + zlib.crc32(f"{probe.slot} {probe.name}".encode()))
    host_args = tuple(cast(each, dtype) for each in probe.make(generator))
    found = candidates(probe.slot)
    rows, timed = [], {}
    with torch.no_grad():
        expected = None if probe.raises else _expected(found["reference"], probe, host_args)
        args = tuple(
            each.to(device) if torch.is_tensor(each) and i not in probe.host else each
            for i, each in enumerate(host_args)
        )
        case = case_of(probe.slot, args) if probe.real else "hard"
        for candidate, function in found.items():
            supports = getattr(function, "supports", None)
            if probe.real and supports is not None and not supports(*args):
                continue  # it would call another candidate: there is nothing of its own to measure
            row = Row(probe.slot, candidate, probe.name, case, name, probe.real)
            row.budget = budgets()[probe.slot][name]
            if candidate == KERNEL and interpreted() and dtype == torch.bfloat16:
                row.budget *= 2  # Triton's interpreter cuts bf16 off instead of rounding it
            if skip_npu and candidate.startswith("npu_"):
                row.verdict, row.why = CANNOT, NEEDS_NPU
            elif candidate == KERNEL and (reason := why_not(device)):
                row.verdict, row.why = CANNOT, reason
            else:
                own = tuple(each.clone() if torch.is_tensor(each) else each for each in args)
                call = _caller(probe, getattr(function, "unchecked", function), own if probe.writes else args)
                seconds = _judge(row, probe, call, expected, device)
                if row.verdict == PASS and probe.real:
                    timed[candidate] = (row, call, seconds)
            rows.append(row)
        _time(timed, device, repeats)
    return rows


def cast(value, dtype: torch.dtype | None):
    """Cast float tensors to the dtype under test; fp64 ones stay, since they test mixed dtypes."""
    if dtype is None or not torch.is_tensor(value) or not value.is_floating_point():
        return value
    return value if value.dtype == torch.float64 else _cast_like(value, dtype)


def _cast_like(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values in another dtype with unchanged strides, also for slices with gaps."""
    if value.dtype == dtype:
        return value
    base = value._base if value._base is not None else value
    if base.numel() == 0 or value._base is None:
        return value.to(dtype)
    return base.to(dtype).as_strided(value.shape, value.stride(), value.storage_offset())


def _caller(probe: Probe, function: Callable, args: tuple) -> Callable[[], torch.Tensor]:
    if (call := probe.call) is not None:
        return lambda: call(function, *args, **probe.kwargs)
    return lambda: function(*args, **probe.kwargs)


def _expected(reference: Callable, probe: Probe, args: tuple) -> torch.Tensor:
    """The reference on the CPU in the probe's wide dtype. Written-to arguments are copies."""
    wide = tuple(
        (each.to(probe.wide, copy=True) if each.is_floating_point() else each.clone())
        if torch.is_tensor(each)
        else each
        for each in args
    )
    return _caller(probe, reference, wide)()


def _judge(row: Row, probe: Probe, call: Callable, expected, device: torch.device) -> float:
    """Fill in verdict, error and counts; return the seconds of the first call."""
    started: list[Launch] = []
    start = time.perf_counter()
    try:
        with listening(started.append):
            ours = call()
            synchronize(device)
    except NeedsTorchNpu as error:
        row.verdict, row.why = CANNOT, str(error)
        return 0.0
    except Exception as error:
        refused = isinstance(error, (NotImplementedError, DeviceError)) or hasattr(error, "operator")
        if probe.raises and not refused:
            row.why = f"raises, as it should: {_first_line(error)}"
        else:
            row.verdict = CANNOT
            row.why = _first_line(error)
        return 0.0
    finally:
        row.kernels = sorted({each.name for each in started})
    seconds = time.perf_counter() - start
    if probe.raises:
        row.verdict, row.why = SILENT, "an invalid call returned a result"
        return seconds
    if ours.shape != expected.shape:
        row.verdict, row.why = WRONG, f"shape {tuple(ours.shape)} instead of {tuple(expected.shape)}"
        return seconds
    row.error = away = relative_error(ours, expected)
    if not (row.budget is not None and away <= row.budget):
        row.verdict = OVER if away <= 0.3 else WRONG
        row.why = f"relative error {away:.1e}, budget {row.budget:g}"
    if probe.real and row.verdict == PASS and seconds < 30:
        with counted(device) as counts:
            call()
        row.note(counts)
    return seconds


def _first_line(error: BaseException) -> str:
    text = str(error).replace(ROOT, "").strip().splitlines()
    operator = getattr(error, "operator", None)
    return f"{operator}: {text[0]}" if operator and text else (text[0] if text else type(error).__name__)


def _time(timed: dict[str, tuple[Row, Callable, float]], device: torch.device, repeats: int) -> None:
    """Fill in medians. The candidates run in turn, so that other load on the machine affects all equally."""
    samples: dict[str, list[float]] = {name: [] for name in timed}
    loops = {}
    for name, (_, call, first) in timed.items():
        if first > SLOW:
            samples[name].append(first)
            continue
        with Timer(device) as timer:
            call()
        loops[name] = max(1, round(SAMPLE_SECONDS / max(timer.seconds, 1e-7)))
    for _ in range(repeats):
        for name, loop in loops.items():
            call = timed[name][1]
            with Timer(device) as timer:
                for _ in range(loop):
                    call()
            samples[name].append(timer.seconds / loop)
    base = statistics.median(samples["reference"]) if samples.get("reference") else None
    for name, (row, _, _) in timed.items():
        row.seconds = statistics.median(samples[name])
        row.ratio = row.seconds / base if base else None
        row.spread = _spread(samples[name])


def _spread(samples: list[float]) -> float:
    if len(samples) < 4:
        return 0.0
    first, middle, third = statistics.quantiles(samples, n=4)
    return (third - first) / middle


def run(
    every: Iterable[Probe],
    device: torch.device,
    dtypes: Iterable[torch.dtype],
    repeats: int = 7,
    tell=lambda s: None,
) -> list[Row]:
    """All probes in all dtypes. `tell` is called with the name of each slot and probe before it runs."""
    real_npu = device.type == "npu" and not is_simulated(device)
    rows = []
    for probe in every:
        for dtype in dtypes:
            tell(f"{probe.slot}: {probe.name}, {dtype_name(dtype)}")
            rows += run_probe(probe, device, dtype, repeats=repeats, skip_npu=not real_npu)
        free_cache(device)
    return rows
