"""A trace as text and as HTML."""

from __future__ import annotations

from html import escape

from ..display.printable import printable
from ..display.table import html_table, text_table

SHOWN = 20
HEAD = ("type", "core", "count", "time", "share")


def title(trace) -> str:
    device = trace.about.get("device")
    named = device.get("name") if isinstance(device, dict) else device
    of = f" of {named}" if named else ""
    warn = "; SIMULATED: no time in it is an NPU's" if trace.simulated else ""
    return f"{trace.form}{of}: {trace.source}{warn}"


def summary(trace) -> list[str]:
    """Lines with the totals."""
    cpu = trace.ai_cpu
    lines = [
        f"kernels {trace.count}; device {us(trace.device_us)}, busy {us(trace.busy_us)}, "
        f"idle {us(trace.idle_us)}"
    ]
    lines.append("AI CPU: unknown" if cpu is None else f"AI CPU: {cpu[0]} kernels, {us(cpu[1])}")
    for step in trace.steps[:5]:
        share = "" if step["idle_share"] is None else f", idle {step['idle_share']:.1%} of the step"
        lines.append(f"step {step['step'] or '?'}: computing {step['computing_us']:.1f} us{share}")
    for call in trace.host_api[:3]:
        lines.append(f"host: {call['api']} x{call['count']}, {call['us']:.1f} us")
    for name, peak in trace.memory.items():
        found = ", ".join(f"{what.removesuffix('_mb')} {size:.1f} MB" for what, size in peak.items())
        lines.append(f"memory of {name}, largest: {found or 'not given'}")
    return [*lines, *(f"note: {note}" for note in trace.notes)]


def rows(trace) -> list[list[str]]:
    whole = trace.device_us
    made = []
    for total in trace.by_type()[:SHOWN]:
        share = f"{float(total.us / whole):.1%}" if whole and total.us is not None else "-"
        made.append([total.type[:60], total.core or "-", str(total.count), us(total.us), share])
    return made


def text(trace) -> str:
    found = rows(trace)
    more = len(trace.by_type()) - len(found)
    table = [text_table(HEAD, found)] if found else []
    rest = [f"… and {more} more types: all with --json"] if more > 0 else []
    return printable("\n".join([title(trace), *table, *rest, *summary(trace)]))


def html(trace) -> str:
    table = html_table(HEAD, rows(trace), ("count", "time", "share"))
    return f"<p>{escape(title(trace))}</p>{table}<p>{'<br>'.join(map(escape, summary(trace)))}</p>"


def us(value) -> str:
    """Microseconds as text, in a unit that fits."""
    if value is None:
        return "unknown"
    figure = float(value)
    for limit, unit, scale in ((1e3, "us", 1), (1e6, "ms", 1e3)):
        if figure < limit:
            return f"{figure / scale:.4g} {unit}"
    return f"{figure / 1e6:.4g} s"
