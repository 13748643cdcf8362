"""From the rows of each table to a Trace."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from .kernels import Kernel, Total, Trace, TraceError
from .tables import bytes_of, core_of, form_of, rows_of, skipped

KB = Decimal(1024)


def read_table(content: str, where: str) -> Trace:
    """Read one table, whichever it is. Raises TraceError if the columns are those of no known table."""
    form = form_of(content)
    if form is None:
        raise TraceError(f"{where}: no table of a profiler (its columns are unknown)")
    trace = Trace(form, where, cores_known=False)
    READERS[form](content, trace)
    return trace


def kernels(content: str, trace: Trace) -> None:
    """kernel_details.csv, and msprof's op_summary_*.csv."""
    bad, last, cores = [], 0, False
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        try:
            us = row.number("duration(us)", "taskduration(us)")
            start = row.number("starttime(us)", "taskstarttime(us)")
        except ValueError:
            bad.append(row.line)
            continue
        if us is None or us < 0:
            bad.append(row.line)
            continue
        name = row.text("name", "opname")
        core = core_of(row.text("acceleratorcore", "tasktype", "coretype"))
        cores = cores or bool(core)
        kind = row.text("type", "optype") or name or "unnamed"
        device = row.text("deviceid") or "0"
        trace.kernels.append(Kernel(name or kind, kind, us, core, start, device, bytes_of(row)))
    _finish(trace, bad, last)
    trace.cores_known = cores


def statistic(content: str, trace: Trace) -> None:
    """op_statistic.csv: totals by type, without single kernels."""
    bad, last, cores = [], 0, False
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        try:
            count, us = row.number("count"), row.number("totaltime(us)")
        except ValueError:
            bad.append(row.line)
            continue
        kind, core = row.text("optype"), core_of(row.text("coretype"))
        if count is None or us is None or count < 0 or us < 0 or count % 1 or not kind:
            bad.append(row.line)
            continue
        cores = cores or bool(core)
        trace.totals.append(Total(kind, core, int(count), us))
    _finish(trace, bad, last)
    trace.cores_known = cores


def operators(content: str, trace: Trace) -> None:
    """operator_details.csv: operators of the host with the time of their kernels."""
    bad, last = [], 0
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        try:
            us = row.number("deviceselfduration(us)")
        except ValueError:
            bad.append(row.line)
            continue
        if us is None or us < 0:
            bad.append(row.line)
        elif us > 0:  # else it only called others
            name = row.text("name") or "unnamed"
            trace.kernels.append(Kernel(name, name, us, operator=name))
    _finish(trace, bad, last)
    trace.notes.append(f"{trace.source}: a row is an operator of the host, which may start several kernels")


def steps(content: str, trace: Trace) -> None:
    """step_trace_time.csv: per step the time computing, communicating and free."""
    bad, last = [], 0
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        try:
            computing, free = row.number("computing"), row.number("free")
            apart = row.number("communication(notoverlapped)")
            stage = row.number("stage")
        except ValueError:
            bad.append(row.line)
            continue
        if computing is None or free is None:
            bad.append(row.line)
            continue
        trace.busy_given = (trace.busy_given or Decimal(0)) + computing + (apart or 0)
        trace.free_us = (trace.free_us or Decimal(0)) + free
        trace.steps.append(
            {
                "step": row.text("step"),
                "computing_us": float(computing),
                "free_us": float(free),
                "stage_us": None if stage is None else float(stage),
                "idle_share": round(float(free / stage), 4) if stage else None,
            }
        )
    if bad:
        trace.notes.append(f"{trace.source}: skipped {skipped(bad, last)}")


def host_calls(content: str, trace: Trace) -> None:
    """api_statistic.csv: the calls of the host, longest first."""
    bad, last = [], 0
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        try:
            us, count = row.number("time(us)"), row.number("count")
        except ValueError:
            us = count = None
        if us is None or count is None:
            bad.append(row.line)
            continue
        name, level = row.text("apiname"), row.text("level")
        trace.host_api.append({"api": name, "level": level, "count": int(count), "us": float(us)})
    trace.host_api.sort(key=lambda call: -call["us"])
    if bad:
        trace.notes.append(f"{trace.source}: skipped {skipped(bad, last)}")


def memory(content: str, trace: Trace) -> None:
    """memory_record.csv: the largest figures of each component, in megabytes."""
    bad, last = [], 0
    for row in rows_of(content, trace.source, trace.notes):
        last = row.line
        peak = trace.memory.setdefault(row.text("component") or "all", {})
        try:
            for name in ("allocated", "reserved"):
                found = row.number(f"total{name}(mb)")
                if found is None and (kb := row.number(f"total{name}(kb)")) is not None:
                    found = kb / KB
                if found is not None:
                    peak[f"{name}_mb"] = max(peak.get(f"{name}_mb", 0.0), float(found))
        except ValueError:
            bad.append(row.line)
    if bad:
        trace.notes.append(f"{trace.source}: skipped {skipped(bad, last)}")


READERS: dict[str, Callable[[str, Trace], None]] = {
    "kernel_details": kernels,
    "op_statistic": statistic,
    "operator_details": operators,
    "step_trace_time": steps,
    "api_statistic": host_calls,
    "memory_record": memory,
}


def _finish(trace: Trace, bad: list[int], last: int) -> None:
    if bad:
        trace.notes.append(f"{trace.source}: skipped {skipped(bad, last)}")
    trace.__post_init__()
    if not trace.totals:
        raise TraceError(f"{trace.source}: no row with a usable time")
