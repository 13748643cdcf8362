"""What is known about the kernels in the slots of a model, for its report."""

from __future__ import annotations

from ..kernel_evidence.table import HEAD, evidence
from ..operators.kernels.candidates import CANDIDATES


def kernels_used(slots: dict) -> dict | None:
    """slots: {name: implementation}. {"head", "rows"} of the evidence; None without a kernel in a slot.

    {"unavailable": why} if the stored records are of other kernels than those that run.
    """
    used = {name for name, function in slots.items() if function in CANDIDATES.get(name, {}).values()}
    if not used:
        return None
    try:
        found = [each for each in evidence() if used & set(each.slots)]
    except ValueError as error:
        return {"unavailable": str(error)}
    return {"head": list(HEAD), "rows": [list(each.row()) for each in found]}
