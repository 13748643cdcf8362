"""Two traces side by side, type by type."""

from __future__ import annotations

from dataclasses import dataclass

from ..display.printable import printable
from ..display.table import text_table
from .kernels import Total, Trace, number
from .show import SHOWN, summary, title, us

HEAD = ("type", "count A", "count B", "time A", "time B", "B - A")


@dataclass(frozen=True)
class Change:
    """One type in both traces. us: None on a side without times."""

    type: str
    before: Total
    after: Total

    @property
    def us(self):
        """The difference in microseconds; None if a side has no times."""
        if self.before.us is None or self.after.us is None:
            return None
        return self.after.us - self.before.us


@dataclass(frozen=True)
class TraceComparison:
    """Trace `a`, trace `b` and their types, largest difference first."""

    a: Trace
    b: Trace
    changes: list[Change]

    def to_json(self) -> dict:
        """Plain data, microseconds. A difference is B minus A."""
        return {
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "difference": {
                "kernels": self.b.count - self.a.count,
                **{name: _difference(getattr(self.a, name), getattr(self.b, name))
                   for name in ("device_us", "busy_us", "idle_us")},
                "by_type": [
                    {
                        "type": change.type,
                        "count_a": change.before.count,
                        "count_b": change.after.count,
                        "us_a": number(change.before.us),
                        "us_b": number(change.after.us),
                        "us": number(change.us),
                    }
                    for change in self.changes
                ],
            },
        }  # fmt: skip

    def __repr__(self) -> str:
        rows = [
            [
                change.type[:60],
                str(change.before.count),
                str(change.after.count),
                us(change.before.us),
                us(change.after.us),
                _signed(change.us),
            ]
            for change in self.changes[:SHOWN]
        ]
        lines = [f"A: {title(self.a)}", *summary(self.a), f"B: {title(self.b)}", *summary(self.b)]
        if self.a.simulated or self.b.simulated:
            lines.append("times of a simulated NPU are times of the host: compare the counts only")
        return printable("\n".join([text_table(HEAD, rows), *lines]))


def compare_traces(a: Trace, b: Trace) -> TraceComparison:
    """Compare two traces by type; a type that one side lacks counts 0 there."""
    ours, theirs = ({total.type: total for total in trace.by_type()} for trace in (a, b))
    changes = []
    for kind in dict.fromkeys([*ours, *theirs]):
        before, after = ours.get(kind), theirs.get(kind)
        changes.append(Change(kind, before or _none(kind, a), after or _none(kind, b)))
    changes.sort(key=lambda change: (-abs(change.us or 0), -abs(change.after.count - change.before.count)))
    return TraceComparison(a, b, changes)


def _none(kind: str, trace: Trace) -> Total:
    return Total(kind, "", 0, None if trace.device_us is None else trace.device_us * 0)


def _difference(a, b) -> float | None:
    return None if a is None or b is None else number(b - a)


def _signed(value) -> str:
    return "unknown" if value is None else ("-" if value < 0 else "+") + us(abs(value))
