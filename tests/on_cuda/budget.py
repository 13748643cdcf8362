"""Parts of a measurement that share a limited time: what matters most runs first, and the rest is dropped."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

DONE, FAILED, DROPPED, STOPPED = "done", "failed", "dropped", "error"


class Deadline:
    """The time that is left, in seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.clock, self.end = clock, clock() + seconds

    def left(self) -> float:
        return self.end - self.clock()

    def part(self, share: float) -> Deadline:
        """A deadline after this share of what is left."""
        return Deadline(share * self.left(), self.clock)


@dataclass(frozen=True)
class Part:
    """run(deadline) returns rows, each a dict; a row with "holds": False is a failed check.

    needs: seconds below which it is not worth a start. They are estimates for an H200: no card was at hand.
    share: the part of the time that is left when it starts, after which it stops by itself.
    """

    name: str
    needs: float
    run: Callable[[Deadline], list[dict]]
    share: float = 1.0


def run_parts(
    parts: Iterable[Part],
    deadline: Deadline,
    note: Callable[[dict], object] = lambda record: None,
) -> list[dict]:
    """Run the parts in their order: [{name, state, seconds, rows, why}]. `note` gets each as it ends.

    A part for which too little time is left is dropped; a shorter one behind it may still run. An exception
    ends its part and no other.
    """
    records = []
    for part in parts:
        record = {"name": part.name, "state": DONE, "seconds": 0.0, "rows": [], "why": ""}
        start, left = deadline.clock(), deadline.left()
        if left < part.needs:
            record["state"] = DROPPED
            record["why"] = f"{max(left, 0):.0f} s were left; it needs {part.needs:.0f} s"
        else:
            try:
                record["rows"] = part.run(deadline.part(part.share))
                if any(row.get("holds") is False for row in record["rows"]):
                    record["state"] = FAILED
            except Exception as error:
                record["state"] = STOPPED
                record["why"] = f"{type(error).__name__}: {str(error).strip()[:400]}"
                record["trace"] = traceback.format_exc()[-4000:]
            record["seconds"] = deadline.clock() - start
        records.append(record)
        note(record)
    return records
