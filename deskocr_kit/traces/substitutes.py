"""Which substitute would remove which row of a trace, and what that would save.

The launches of the network are counted by family of work (slot_work.py); a row of the trace belongs to the
family of its type. If a substitute halves the launches of a family, it removes half of the time of the
family's rows. What it adds is subtracted at the mean time of the family's rows in the same trace. If the
trace has no such row, the price is not known, and the result says so.

All figures are estimates: that every launch of a family takes the family's mean time is an assumption.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from decimal import Decimal

from ..display.table import text_table
from ..operators.substitutes.registry import candidates
from .families import family_of_type
from .kernels import Trace, number
from .show import us
from .slot_work import NetworkWork

HEAD = ("slot", "substitute", "removes", "saves", "adds, price unknown")
NOTED = "estimate: each launch of a family of work takes the mean time of the family's rows in this trace"


@dataclass(frozen=True)
class Removal:
    """What one substitute would change in a trace.

    removes: {type: (rows, microseconds, share of the type's rows)}. added_us: price of what it adds instead.
    unknown: {family: launches} that it adds and the trace has no row of. launches: fewer launches per page.
    """

    slot: str
    substitute: str
    instead_of: str
    removes: dict[str, tuple[float, Decimal, float]]
    added_us: Decimal
    unknown: dict[str, int]
    launches: int

    @property
    def saves_us(self) -> Decimal:
        """Estimated saving in microseconds; negative if it costs more than it removes."""
        return sum((time for _, time, _ in self.removes.values()), Decimal(0)) - self.added_us

    def to_json(self) -> dict:
        return {
            "slot": self.slot,
            "substitute": self.substitute,
            "instead_of": self.instead_of,
            "removes": [
                {"type": kind, "count": round(rows, 1), "us": number(time), "share": round(share, 4)}
                for kind, (rows, time, share) in self.removes.items()
            ],
            "adds_us": number(self.added_us),
            "adds_unknown": self.unknown,
            "fewer_launches": self.launches,
            "saves_us": number(self.saves_us),
            "kind": NOTED,
        }


class Removals(list):
    """Removals, largest saving first, with a text form."""

    def __repr__(self) -> str:
        if not self:
            return "no substitute of a slot would remove a row of this trace"
        best: dict[str, Removal] = {}
        for each in self:
            best.setdefault(each.slot, each)
        rows = [
            [
                each.slot,
                each.substitute,
                _shown(each),
                us(each.saves_us),
                ", ".join(f"{n} x {family}" for family, n in list(each.unknown.items())[:4]) or "-",
            ]
            for each in best.values()
        ]
        more = (
            [f"the best substitute of each slot; {len(self)} in all with --json"]
            if len(self) > len(rows)
            else []
        )
        return "\n".join([text_table(HEAD, rows), *more, NOTED])


def removals(trace: Trace, work: NetworkWork, ran: dict[str, str] | None = None) -> Removals:
    """The substitutes that would save time, for each slot.

    work: of the network that ran. ran: {slot: candidate} of that run; the reference where a slot is missing.
    """
    ran = ran or {}
    rows = _by_family(trace)
    before = work.of(ran)
    found = Removals()
    for slot, counted in work.slots.items():
        now = ran.get(slot, "reference")
        current = counted.get(now)
        if current is None:
            continue
        for name in candidates(slot):
            other = counted.get(name)
            if name in (now, "cpu_fallback") or other is None:
                continue
            each = _removal(slot, name, now, other - current, current - other, before, rows)
            if each.removes and each.saves_us > 0:
                found.append(each)
    found.sort(key=lambda each: -each.saves_us)
    return found


def _by_family(trace: Trace) -> dict[str, list]:
    """{family: the trace's totals of it}."""
    found = collections.defaultdict(list)
    operators = collections.defaultdict(set)
    for kernel in trace.kernels:  # a trace that knows the operators needs no table of types
        if kernel.operator:
            operators[kernel.type].add(kernel.operator)
    for total in trace.by_type():
        known = operators.get(total.type, set())
        kind = next(iter(known)) if len(known) == 1 else total.type
        if total.us is not None and (family := family_of_type(kind)) is not None:
            found[family].append(total)
    return found


def _removal(slot, name, now, added, removed, before, rows) -> Removal:
    removes, price, unknown = {}, Decimal(0), {}
    for family, n in removed.items():
        share = min(1.0, n / max(before[family], n))
        for total in rows.get(family, ()):
            portion = Decimal(str(round(share, 6)))
            removes[total.type] = (share * total.count, total.us * portion, share)
    for family, n in added.items():
        known = rows.get(family)
        if not known:
            unknown[family] = n
            continue
        count = sum(total.count for total in known)
        # The trace may be of more or fewer tokens than the count: scale by the launches that both know.
        scale = Decimal(count) / before[family] if before[family] else Decimal(1)
        price += sum(total.us for total in known) / max(count, 1) * n * scale
    return Removal(slot, name, now, removes, price, unknown, sum(removed.values()) - sum(added.values()))


def _shown(each: Removal) -> str:
    found = sorted(each.removes.items(), key=lambda item: -item[1][1])[:3]
    texts = [f"{kind}: {share:.0%}, {us(time)}" for kind, (_, time, share) in found]
    return "; ".join(texts) + ("; …" if len(each.removes) > 3 else "")
