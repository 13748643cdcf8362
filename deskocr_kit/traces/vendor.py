"""Write op_statistic.csv and trace_view.json in the columns of the Ascend PyTorch Profiler.

For devices whose own profiler does not write them: the simulated NPU and the CPU. The process in the timeline
is named "Ascend Hardware", as readers expect, followed by what it really was.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

from model.files import write_atomically

from .kernels import Kernel
from .timeline import HARDWARE

FOLDER = "ASCEND_PROFILER_OUTPUT"
HEAD = (
    "Device_id", "OP Type", "Core Type", "Count", "Total Time(us)", "Min Time(us)", "Avg Time(us)",
    "Max Time(us)", "Ratio(%)",
)  # fmt: skip


def write_vendor(kernels: list[Kernel], folder: Path, really: str) -> list[Path]:
    """Write both files into folder/ASCEND_PROFILER_OUTPUT/; returns their paths.

    kernels: with start times. really: what the device is, such as "CPU" or "simulated NPU".
    """
    target = folder / FOLDER
    files = {"op_statistic.csv": statistic(kernels), "trace_view.json": timeline(kernels, really)}
    for name, content in files.items():
        write_atomically(target / name, content.encode("utf-8"))
    return [target / name for name in files]


def statistic(kernels: list[Kernel]) -> str:
    """The table: one line per type and core, longest first."""
    grouped: dict[tuple[str, str], list[Decimal]] = defaultdict(list)
    for kernel in kernels:
        grouped[kernel.type, kernel.core].append(kernel.us)
    whole = sum((kernel.us for kernel in kernels), Decimal(0)) or Decimal(1)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    for (kind, core), times in sorted(grouped.items(), key=lambda item: -sum(item[1])):
        total = sum(times, Decimal(0))
        figures = (total, min(times), round(total / len(times), 3), max(times), round(100 * total / whole, 3))
        table.writerow((0, kind, core or "N/A", len(times), *figures))
    return text.getvalue()


def timeline(kernels: list[Kernel], really: str) -> str:
    """A bare array of events; times are decimal strings, as the vendor writes them."""
    events: list[dict] = [
        {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": f"{HARDWARE} ({really})"}}
    ]
    for kernel in kernels:
        args = {"Task Type": kernel.core or "N/A", "OP Type": kernel.type}
        event = {"ph": "X", "name": kernel.name, "pid": 0, "tid": 0}
        events.append({**event, "ts": str(kernel.start), "dur": float(kernel.us), "args": args})
    return json.dumps(events, ensure_ascii=False)
