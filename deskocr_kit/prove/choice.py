"""From what was measured to a plan: per slot and kind of call, the best candidate that never failed.

On a real device the fastest wins, if it is so by more than the noise seen: otherwise the reference stays.
Times on the simulated NPU say nothing about an NPU, so there the counts decide: no operator on the host, no
wait, no AI-CPU kernel, fewest launches, least memory; in this order.
"""

from __future__ import annotations

from collections import defaultdict

from ..substitutes import ANY
from .runner import PASS, Row

NOISE = 0.05  # a gain below this share, or below the spread of the samples, is not a gain


def choose(rows: list[Row], dtype: str, simulated: bool) -> dict[str, dict[str, dict]]:
    """{slot: {kind of call: {"use": candidate, "because": …, figures}}}; "*" is for any other kind.

    A candidate that failed one probe of its slot in this dtype, real or hard, is out. A slot in which none is
    left is not listed.
    """
    plan: dict[str, dict[str, dict]] = {}
    for slot in dict.fromkeys(row.slot for row in rows):
        mine = [row for row in rows if row.slot == slot and row.dtype in (dtype, "int64")]
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
        plan[slot] = {case: _best(_complete(found), simulated) for case, found in sorted(real.items())}
        if not plan[slot]:
            plan[slot] = {ANY: {"use": sound[0], "because": "the first that passes; nothing was timed"}}
    return plan


def _best(found: dict[str, list[Row]], simulated: bool) -> dict:
    name = min(found, key=lambda each: _cost(found[each], simulated))
    if "reference" in found and name != "reference":
        ours, reference = found[name], found["reference"]
        gain = 1 - sum(r.seconds for r in ours) / sum(r.seconds for r in reference)
        noise = max(NOISE, *(row.spread or 0.0 for row in (*ours, *reference)))
        if not simulated and gain <= noise:
            name = "reference"
        if simulated and _cost(ours, True)[:5] == _cost(reference, True)[:5]:
            name = "reference"
    rows = found[name]
    evidence = {
        "use": name,
        "because": "fewest waits and launches that passes" if simulated else "fastest that passes",
        "worst error": max(row.error for row in rows),
        "budget": rows[0].budget,
        "launches": sum(row.launches for row in rows),
        "syncs": sum(row.syncs for row in rows),
        "extra bytes": max(row.extra_bytes for row in rows),
    }
    if "reference" not in found:
        evidence["because"] += "; the reference does not pass here"
    if not simulated:
        evidence["seconds"] = sum(row.seconds for row in rows)
        if "reference" in found:
            evidence["ratio to reference"] = evidence["seconds"] / sum(r.seconds for r in found["reference"])
    return evidence


def _complete(found: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Those that were measured on every probe of the case: a sum over fewer would win unfairly."""
    most = max(map(len, found.values()))
    return {name: rows for name, rows in found.items() if len(rows) == most}


def _cost(rows: list[Row], simulated: bool) -> tuple:
    if not simulated:
        return (sum(row.seconds for row in rows),)
    names = ("fallbacks", "syncs", "ai_cpu", "launches", "extra_bytes")
    return tuple(sum(getattr(row, name) for row in rows) for name in names)
