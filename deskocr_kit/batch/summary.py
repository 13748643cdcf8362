"""The outcome of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape

FILE = "summary.json"


@dataclass
class Summary:
    """The outcome of every page. read, skipped, …: folders under `out`; failed: {file, page, error, kind}.

    cached: folders whose text came from the cache. again: folders of pages that got a second attempt with a
    stronger guard. pending: pages of the output folder without an outcome. stopped: why the run ended early.
    """

    settings: dict
    read: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)  # see reading/doubt.py
    cached: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    pending: int = 0
    restarts: int = 0  # of worker processes
    devices: dict[str, int] = field(default_factory=dict)  # pages that each device read
    interrupted: bool = False
    stopped: str = ""

    @property
    def done(self) -> int:
        return len(self.read) + len(self.skipped) + len(self.failed)

    @property
    def kinds(self) -> dict[str, int]:
        """{class of a failure: pages}, see faults.KINDS."""
        return dict(Counter(each["kind"] for each in self.failed))

    def counts(self) -> dict[str, int]:
        return {
            name: len(getattr(self, name)) for name in ("read", "failed", "skipped", "truncated", "loops")
        }

    def record(self) -> dict:
        rate = self.tokens / self.seconds if self.seconds else None
        return {**vars(self), "counts": self.counts(), "kinds": self.kinds, "tokens_per_second": rate}

    def __repr__(self) -> str:
        lines = [f"{name:<10} {count:>6}" for name, count in self.counts().items()]
        if self.pending:
            lines.append(f"{'pending':<10} {self.pending:>6}")
        lines += [f"failed: {each['error']}" for each in self.failed]
        lines += [
            f"{what}: {name}" for what in ("truncated", "loops", "warned") for name in getattr(self, what)
        ]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        if self.interrupted:
            lines.append("interrupted: run the same command again to continue")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"
