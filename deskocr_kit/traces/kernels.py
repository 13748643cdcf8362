"""A trace in one form, whatever profiler wrote it: kernels with times, or totals by type.

Times are microseconds as `Decimal`: profilers write them since 1970 with nanoseconds, and a float64 of that
size is exact to a quarter of a microsecond only.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from .figure import draw
from .show import html, text

AI_CPU = "AI_CPU"


class TraceError(ValueError):
    """A folder or file that is no trace; the message says what is wrong and what to do, in one line."""


@dataclass(frozen=True)
class Kernel:
    """One row of a trace: work of the device.

    type: the kind of operator, such as "MatMulV2" or "aten::mm". core: the unit that ran it, such as
    "AI_VECTOR_CORE"; "" if unknown. start: None if the trace has no start times. bytes: of inputs and outputs
    together; None if the trace has no shapes. operator: the PyTorch operator that started it, if known.
    """

    name: str
    type: str
    us: Decimal
    core: str = ""
    start: Decimal | None = None
    device: str = "0"
    bytes: int | None = None
    operator: str = ""

    @property
    def end(self) -> Decimal | None:
        return None if self.start is None else self.start + self.us


@dataclass(frozen=True)
class Total:
    """All rows of one type on one kind of core. us: None if the source has no times."""

    type: str
    core: str
    count: int
    us: Decimal | None


@dataclass
class Trace:
    """What was read. `kernels` is empty if the source has totals only.

    form: the name of the form, see forms.py. source: the file, relative to the folder that was asked for.
    about: facts of the run that made it (device, versions, checkpoint, tokens), if it is known.
    free_us, busy_given: idle and busy time as the profiler itself gives them.
    """

    form: str
    source: str
    kernels: list[Kernel] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: dict = field(default_factory=dict)
    steps: list[dict] = field(default_factory=list)
    host_api: list[dict] = field(default_factory=list)
    memory: dict = field(default_factory=dict)
    free_us: Decimal | None = None
    busy_given: Decimal | None = None
    cores_known: bool = True

    def __post_init__(self):
        if self.kernels and not self.totals:
            self.totals = totals_of(self.kernels)

    # ------------------------------------------------------------------ figures
    @property
    def simulated(self) -> bool:
        return bool(self.about.get("simulated"))

    @property
    def count(self) -> int:
        return sum(total.count for total in self.totals)

    @property
    def device_us(self) -> Decimal | None:
        """Sum of all durations: what overlaps counts twice."""
        known = [total.us for total in self.totals if total.us is not None]
        return sum(known, Decimal(0)) if known else None

    @property
    def busy_us(self) -> Decimal | None:
        """Time in which at least one kernel ran, added up over devices; None if unknown."""
        found = [_union(spans)[0] for spans in self._spans()]
        return sum(found, Decimal(0)) if found else self.busy_given

    @property
    def idle_us(self) -> Decimal | None:
        """The profiler's own figure if it gives one, else the gaps between the first and the last kernel."""
        if self.free_us is not None:
            return self.free_us
        found = [_union(spans) for spans in self._spans()]
        return sum((span - busy for busy, span in found), Decimal(0)) if found else None

    @property
    def ai_cpu(self) -> tuple[int, Decimal | None] | None:
        """(rows, microseconds) on the AI CPU; None if the source does not say where kernels ran."""
        if not self.cores_known:
            return None
        rows = [total for total in self.totals if total.core == AI_CPU]
        timed = [total.us for total in rows if total.us is not None]
        return sum(total.count for total in rows), sum(timed, Decimal(0)) if timed or not rows else None

    def by_type(self) -> list[Total]:
        """One Total per type, longest first; the core is that with most time."""
        grouped: dict[str, list[Total]] = collections.defaultdict(list)
        for total in self.totals:
            grouped[total.type].append(total)
        rows = []
        for kind, group in grouped.items():
            timed = [total.us for total in group if total.us is not None]
            first = max(group, key=lambda total: (total.us or 0, total.count))
            us = sum(timed, Decimal(0)) if timed else None
            rows.append(Total(kind, first.core, sum(total.count for total in group), us))
        return sorted(rows, key=lambda total: (-(total.us or 0), -total.count, total.type))

    def gaps(self) -> list[Decimal]:
        """Times from one start to the next where the device was idle between them: what starting costs."""
        found = []
        for spans in self._spans():
            reached, before = spans[0][1], spans[0][0]
            for start, end in spans[1:]:
                if start > reached:
                    found.append(start - before)
                reached, before = max(reached, end), start
        return found

    def _spans(self) -> list[list[tuple[Decimal, Decimal]]]:
        """Sorted (start, end) per device; empty unless every kernel has a start."""
        if not self.kernels or any(kernel.start is None for kernel in self.kernels):
            return []
        spans: dict[str, list] = collections.defaultdict(list)
        for kernel in self.kernels:
            spans[kernel.device].append((kernel.start, kernel.end))
        return [sorted(each) for each in spans.values()]

    # ------------------------------------------------------------------ showing
    def to_json(self) -> dict:
        """Plain data. Times are microseconds; null: the source does not say."""
        cpu = self.ai_cpu
        return {
            "form": self.form,
            "source": self.source,
            "simulated": self.simulated,
            "about": self.about,
            "kernels": self.count,
            "device_us": number(self.device_us),
            "busy_us": number(self.busy_us),
            "idle_us": number(self.idle_us),
            "idle_from": None if self.idle_us is None else "gaps" if self.free_us is None else "step times",
            "ai_cpu": {"count": cpu and cpu[0], "us": cpu and number(cpu[1])},
            "by_type": [
                {"type": total.type, "count": total.count, "us": number(total.us), "core": total.core}
                for total in self.by_type()
            ],
            "steps": self.steps,
            "host_api": self.host_api,
            "memory": self.memory,
            "notes": self.notes,
        }

    def draw(self):
        """A matplotlib Figure, see figure.py."""
        return draw(self)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        return html(self)


def number(value: Decimal | None) -> float | None:
    return None if value is None else round(float(value), 6)


def totals_of(kernels: Iterable[Kernel]) -> list[Total]:
    """Kernels added up by type and core."""
    count: collections.Counter = collections.Counter()
    time: dict = collections.defaultdict(Decimal)
    for kernel in kernels:
        count[kernel.type, kernel.core] += 1
        time[kernel.type, kernel.core] += kernel.us
    return [Total(kind, core, n, time[kind, core]) for (kind, core), n in count.items()]


def _union(spans: list[tuple[Decimal, Decimal]]) -> tuple[Decimal, Decimal]:
    """(length of the union, length from first start to last end) of sorted spans."""
    busy, (begin, reached) = Decimal(0), spans[0]
    first = begin
    for start, end in spans[1:]:
        if start > reached:
            busy, begin, reached = busy + reached - begin, start, end
        reached = max(reached, end)
    return busy + reached - begin, reached - first
