"""Make a plan from measurements: for each slot and kind of call, the best candidate that never failed.

On a real device the fastest candidate is chosen if its gain exceeds the measured noise. Otherwise the default
of the network stays, or the reference if the default does not pass. The chosen candidate must not be slower
than the reference, by more than the noise, in any single call of the kind.
Times on the simulated NPU do not predict times on an NPU, so there the counts decide: no operator on the
host, no wait, no AI-CPU kernel, fewest launches, least memory; in this order. The default stays if all are
equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeVar

from ..substitutes.cases import ANY
from ..substitutes.registry import default
from .runner import PASS, Row

NOISE = 0.05  # a gain below this share, or below the spread of the samples, is not a gain
COSTS = {
    "fallbacks": "operators on the host", "syncs": "waits", "ai_cpu": "AI-CPU kernels",
    "launches": "launches", "extra_bytes": "bytes held",
}  # fmt: skip
T = TypeVar("T")


def choose(rows: list[Row], dtype: str, simulated: bool) -> dict[str, dict[str, dict]]:
    """{slot: {kind of call: {"use": candidate, "because": …, figures}}}; "*" is for any other kind.

    A candidate that failed one probe of its slot in this dtype, real or hard, is excluded. A slot without a
    remaining candidate is not listed.
    """
    plan: dict[str, dict[str, dict]] = {}
    for slot in dict.fromkeys(row.slot for row in rows):
        mine = [row for row in rows if row.slot == slot and row.dtype == dtype]
        failed = {row.candidate for row in mine if row.verdict != PASS}
        sound = [name for name in dict.fromkeys(row.candidate for row in mine) if name not in failed]
        if not sound:
            continue
        real: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in mine:
            if row.real and row.candidate in sound and row.launches is not None:
                real[row.case][row.candidate].append(row)
                if row.case != ANY:
                    real[ANY][row.candidate].append(row)
        mixed = len(real) > 1  # then "*" is for calls that were not measured; the sum of all kinds decides
        plan[slot] = {
            case: _best(_complete(found), simulated, default(slot), not (mixed and case == ANY))
            for case, found in sorted(real.items())
        }
        if not plan[slot]:
            plan[slot] = {ANY: {"use": sound[0], "because": "the first that passes; nothing was timed"}}
    return plan


def _best(found: dict[str, list[Row]], simulated: bool, base: str, each_call: bool = True) -> dict:
    """The choice and its figures. base: the candidate that stays unless another is better.

    each_call: exclude candidates that are slower than the reference in one of the calls.
    """
    if each_call and not simulated and "reference" in found:
        found = {name: rows for name, rows in found.items() if not _slower(rows, found["reference"])}
    base = base if base in found else "reference"
    names = sorted(found, key=lambda each: (_cost(found[each], simulated), each != base))
    name = names[0]
    if base in found:  # the cheapest candidate whose gain exceeds the noise
        gains = _spares if simulated else _gains
        name = next(each for each in names if each == base or gains(found[each], found[base]))
    rows = found[name]
    because = _decided_by(found, name) if simulated else _quickest(found, name, base)
    if "reference" not in found:
        because += "; the reference does not pass here"
    evidence: dict[str, object] = {
        "use": name,
        "because": because,
        "worst error": max(_measured(row.error for row in rows)),
        "budget": rows[0].budget,
        "launches": sum(_measured(row.launches for row in rows)),
        "syncs": sum(_measured(row.syncs for row in rows)),
        "extra bytes": max(_measured(row.extra_bytes for row in rows)),
    }
    if not simulated:
        evidence["seconds"] = _seconds(rows)
        if "reference" in found:
            evidence["ratio to reference"] = _seconds(rows) / _seconds(found["reference"])
    return evidence


def _measured(figures: Iterable[T | None]) -> list[T]:
    """The figures of measured rows: `run_probe` sets all figures of a row, or `choose` leaves it out."""
    found: list[T] = []
    for figure in figures:
        assert figure is not None
        found.append(figure)
    return found


def _seconds(rows: Iterable[Row]) -> float:
    return sum(_measured(row.seconds for row in rows))


def _noise(rows: Iterable[Row]) -> float:
    return max(NOISE, *(row.spread or 0.0 for row in rows))


def _gains(ours: list[Row], base: list[Row]) -> bool:
    gain = 1 - _seconds(ours) / _seconds(base)
    return gain > _noise((*ours, *base))


def _spares(ours: list[Row], base: list[Row]) -> bool:
    """Whether the costs are lower, in the order of `_cost`; a few bytes less do not count."""
    *counts, held = _cost(ours, True)
    *others, base_held = _cost(base, True)
    return counts < others or (counts == others and held < base_held * (1 - NOISE))


def _slower(ours: list[Row], reference: list[Row]) -> bool:
    """Whether one of the calls takes longer than the reference does, by more than the noise."""
    base = {row.probe: row for row in reference}
    pairs = [(row, base[row.probe]) for row in ours if row.probe in base]
    return any(_seconds([a]) > _seconds([b]) * (1 + _noise((a, b))) for a, b in pairs)


def _quickest(found: dict[str, list[Row]], name: str, base: str) -> str:
    if name == base and min(found, key=lambda each: _cost(found[each], False)) != name:
        return "nothing is faster by more than the noise"
    return "fastest that passes"


def _decided_by(found: dict[str, list[Row]], name: str) -> str:
    """The difference from the next best: "fewer waits than grouped_mm (1, not 2)"."""
    others = [each for each in found if each != name]
    if not others:
        return "the only one that passes"
    ours = _cost(found[name], True)
    second = min(others, key=lambda each: _cost(found[each], True))
    for word, a, b in zip(COSTS.values(), ours, _cost(found[second], True), strict=True):
        if a > b:
            return f"the default stays: {second} saves too little ({b} {word}, not {a})"
        if a < b:
            return f"fewer {word} than {second} ({a}, not {b})"
    return f"costs what {second} costs"


def _complete(found: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Candidates measured on every probe of the case: a sum over fewer probes would be too small."""
    most = max(map(len, found.values()))
    return {name: rows for name, rows in found.items() if len(rows) == most}


def _cost(rows: list[Row], simulated: bool) -> tuple:
    if not simulated:
        return (_seconds(rows),)
    return tuple(sum(getattr(row, name) for row in rows) for name in COSTS)
