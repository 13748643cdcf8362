"""Timelines: trace_view.json of the Ascend profiler, traces of torch.profiler on CUDA and on a CPU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal

from model.untrusted import UntrustedFile, parse_json

from ..opcount.names import effect_of_name
from .kernels import AI_CPU, Kernel, Total, Trace, TraceError
from .tables import core_of, decimal

HARDWARE = "Ascend Hardware"
#: Tasks of the card that compute nothing: order between streams, the profiler itself, copies.
NO_KERNEL = re.compile(
    r"EVENT|NOTIFY|SQE$|WAIT|RECORD|PROFILER|MEMCPY|PLACE_HOLDER|MODEL_(MAINTAIN|EXECUTE)|N/A"
)
COPIES = ("gpu_memcpy", "gpu_memset")


def read_timeline(content: str, where: str) -> Trace:
    """Read a timeline. Raises TraceError if it has no event of a device or of an operator."""
    notes: list[str] = []
    events = [each for each in events_of(content, where, notes) if isinstance(each, dict)]
    hardware = {
        str(each.get("pid"))
        for each in events
        if each.get("ph") == "M" and each.get("name") == "process_name" and HARDWARE in str(_args(each))
    }
    spans = [each for each in events if each.get("ph") == "X"]
    if hardware:
        return _made(Trace("trace_view", where, notes=notes), spans, _ascend, hardware)
    if any(each.get("cat") == "kernel" for each in spans):
        return _cuda(Trace("torch.profiler, CUDA", where, notes=notes), spans)
    if any(each.get("cat") == "cpu_op" for each in spans):
        return _cpu(Trace("torch.profiler, CPU", where, notes=notes), spans)
    raise TraceError(f"{where}: JSON without kernels: neither trace_view.json nor a trace of torch.profiler")


def events_of(content: str, where: str, notes: list[str]) -> list:
    """The events of a trace: a bare array, or the list under "traceEvents"; of a cut file, the whole ones."""
    try:
        found = json.loads(content, parse_float=Decimal)
    except RecursionError:
        raise TraceError(f"{where}: JSON nested too deeply to be a trace") from None
    except ValueError:
        return list(_whole_events(content, where, notes))
    if isinstance(found, dict):
        found = found.get("traceEvents")
    if not isinstance(found, list):
        raise TraceError(f"{where}: JSON, but no list of events")
    return found


def _whole_events(content: str, where: str, notes: list[str]) -> Iterator:
    """The events before the place where a file was cut. Raises TraceError if there is none."""
    start = re.match(r'\s*(?:\{.{0,100000}?"traceEvents"\s*:\s*)?\[', content, re.S)
    if start is None:
        raise TraceError(f"{where}: neither JSON nor the beginning of a trace")
    decoder, at, number = json.JSONDecoder(parse_float=Decimal), start.end(), 0
    blank = re.compile(r"[\s,]*")
    while found := blank.match(content, at):  # always, also without a blank
        at = found.end()
        try:
            event, at = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            break
        number += 1
        yield event
    if not number:
        raise TraceError(f"{where}: neither JSON nor the beginning of a trace")
    if content[at : at + 1] != "]":
        notes.append(f"{where}: skipped the last event, which is cut, after {number} whole ones")


def _args(event: dict) -> dict:
    found = event.get("args")
    return found if isinstance(found, dict) else {}


def _times(event: dict) -> tuple[Decimal, Decimal] | None:
    """(start, duration) in microseconds; None if they are no numbers. Both may be strings."""
    try:
        start, us = decimal(event.get("ts")), decimal(event.get("dur", 0))
    except ValueError:
        return None
    return (start, us) if us >= 0 else None


def _made(trace: Trace, spans: list[dict], read, *more) -> Trace:
    """Fill the trace with the kernels that `read` makes of the spans."""
    bad = 0
    for event in spans:
        times = _times(event)
        if times is None:
            bad += 1
        elif (kernel := read(event, *times, *more)) is not None:
            trace.kernels.append(kernel)
    if bad:
        trace.notes.append(f"{trace.source}: skipped {bad} event{'s' * (bad > 1)} without usable times")
    if not trace.kernels:
        raise TraceError(
            f"{trace.source}: the trace has no kernel; was the device busy while it was recorded?"
        )
    trace.__post_init__()
    return trace


def _ascend(event: dict, start: Decimal, us: Decimal, hardware: set[str]) -> Kernel | None:
    args = _args(event)
    task = str(args.get("Task Type", ""))
    if str(event.get("pid")) not in hardware or not task or NO_KERNEL.search(task.upper()):
        return None
    name = str(event.get("name") or "unnamed")
    kind = str(args.get("OP Type") or args.get("Op Type") or args.get("Type") or type_in(name))
    return Kernel(name, kind, us, core_of(task), start, str(args.get("Device Id", event["pid"])))


def type_in(name: str) -> str:
    """The type in the name of a kernel: "aclnnMatmul_MatMulCommon_MatMulV2" -> "MatMulV2".

    Names of compiled graphs end with an index, which is no part of it.
    """
    parts = [part for part in re.split(r"[_/]", name.removesuffix("_OpApi")) if part and not part.isdigit()]
    return parts[-1] if parts else name


def _cuda(trace: Trace, spans: list[dict]) -> Trace:
    """Kernels by their short name, with the operator that started them, from the External id."""
    operators = {_id(each): str(each.get("name")) for each in spans if each.get("cat") == "cpu_op"}
    copies = sum(each.get("cat") in COPIES for each in spans)

    def read(event: dict, start: Decimal, us: Decimal) -> Kernel | None:
        if event.get("cat") != "kernel":
            return None
        args, name = _args(event), str(event.get("name") or "unnamed")
        operator = operators.get(_id(event), "")
        device = str(args.get("device", "0"))
        return Kernel(name, short(name), us, "GPU", start, device, operator=operator)

    if copies:
        trace.notes.append(f"{trace.source}: {copies} copies and fills of memory are no kernels, left out")
    return _made(trace, spans, read)


def _id(event: dict) -> str:
    """What joins a kernel with the operator that started it."""
    return str(_args(event).get("External id", ""))


def short(name: str) -> str:
    """A C++ kernel without its result type, template arguments and parameters."""
    plain = re.sub(r"^(void|bool|int|float)\s+", "", name)
    return re.split(r"[<(]", plain, maxsplit=1)[0].strip() or name


def _cpu(trace: Trace, spans: list[dict]) -> Trace:
    """Operators of the CPU that are launches by opcount's definition: the outermost one that counts.

    What an operator calls inside belongs to it. One that counts as its parts is passed through.
    """
    ends: dict[str, Decimal] = {}  # per thread, the end of the operator that was counted last

    def read(event: dict, start: Decimal, us: Decimal) -> Kernel | None:
        name, thread = str(event.get("name")), f"{event.get('pid')} {event.get('tid')}"
        if event.get("cat") != "cpu_op" or start < ends.get(thread, start):
            return None
        effect = effect_of_name(name)
        if effect == "parts":
            return None
        ends[thread] = start + us
        return Kernel(name, name, us, "CPU", start, operator=name) if effect == "launch" else None

    def order(event: dict) -> tuple:
        times = _times(event) or (Decimal(0), Decimal(0))
        return times[0], -times[1]  # a caller before what it calls

    return _made(trace, sorted(spans, key=order), read)


def read_record(content: str, where: str) -> Trace | None:
    """The record of the simulated NPU (`Recording.rows()`), if it is one: counts without times."""
    try:
        found = parse_json(content, where)
    except UntrustedFile:
        return None
    rows = found.get("rows") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not rows or not all(map(_is_count, rows)):
        return None
    return _counts(rows, where)


def _is_count(row) -> bool:
    """Whether a row is one of `Recording.rows()`."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("kind", "operator")):
        return False
    count = row.get("count")
    return isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 1 << 40


def _counts(rows: list[dict], where: str) -> Trace:
    trace = Trace("record of the simulated NPU", where, about={"simulated": True})
    launched: dict[str, int] = {}
    slow: dict[str, int] = {}
    for row in rows:
        into = {"launch": launched, "ai-cpu": slow}.get(row["kind"])
        if into is not None:
            into[row["operator"]] = into.get(row["operator"], 0) + row["count"]
    for operator, count in launched.items():
        on_cpu = min(slow.get(operator, 0), count)
        trace.totals += [
            Total(operator, core, n, None) for core, n in ((AI_CPU, on_cpu), ("NPU", count - on_cpu)) if n
        ]
    trace.notes.append(f"{where}: counts of a simulated NPU; it has no times")
    return trace
