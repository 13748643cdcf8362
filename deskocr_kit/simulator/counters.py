"""Counts of operator launches, copies and synchronisations on the device, with operator and source line.

    with counters.record() as r:
        model.generate(...)
    r.launches, r.syncs, r.h2d_bytes, r.by_site("sync")

Outside such a block nothing is recorded, which saves time. Blocks can be nested.
"""

from __future__ import annotations

import collections
import contextlib
import html
import os
import sys
from types import FrameType

import torch

from . import memory

#: What is counted. "launch": one operator on the device. "view": no work on a device. "sync": the host waits
#: for the device. "fallback": an operator ran on the host CPU. "ai-cpu": a kernel ran on the card's slow
#: scalar cores. "refused": an operator that the profile does not have raised an error.
KINDS = ("launch", "view", "sync", "h2d", "d2h", "p2p", "fallback", "ai-cpu", "refused")

_NOT_A_SITE = (
    os.path.dirname(torch.__file__) + os.sep,
    os.path.dirname(os.path.abspath(__file__)) + os.sep,
    "<frozen",
)
_skip: dict[str, bool] = {}


def frame_of_caller():
    """The innermost frame outside torch and the simulator, or None."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        inside = _skip.get(name)
        if inside is None:
            inside = _skip[name] = name.startswith(_NOT_A_SITE) or os.path.abspath(name).startswith(
                _NOT_A_SITE
            )
        if not inside:
            return frame
        frame = frame.f_back
    return None


def site() -> str:
    """`file:line` of the innermost frame outside torch and the simulator."""
    frame = frame_of_caller()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "?"


class Recording:
    """The counts of one `record()` block. They are final at the end of the block."""

    def __init__(self, sites: bool = True):
        self.sites = sites
        self.peak_bytes = 0
        self._count: collections.Counter = collections.Counter()  # (kind, operator, site) -> times
        self._bytes: collections.Counter = collections.Counter()  # (kind, operator, site) -> bytes

    # ------------------------------------------------------------------ totals
    launches = property(lambda self: self.total("launch"), doc="operators started on the device")
    views = property(lambda self: self.total("view"), doc="view operators: no work on a device")
    syncs = property(lambda self: self.total("sync"), doc="times the host waited for the device")
    fallbacks = property(lambda self: self.total("fallback"), doc="operators that ran on the host CPU")
    ai_cpu = property(lambda self: self.total("ai-cpu"), doc="kernels on the card's scalar cores")
    refused = property(
        lambda self: self.total("refused"), doc="operators that raised: missing in the profile"
    )
    h2d_copies = property(lambda self: self.total("h2d"), doc="copies host to device")
    d2h_copies = property(lambda self: self.total("d2h"), doc="copies device to host")
    h2d_bytes = property(lambda self: self.total("h2d", self._bytes), doc="bytes host to device")
    d2h_bytes = property(lambda self: self.total("d2h", self._bytes), doc="bytes device to host")

    def total(self, kind: str, counter: collections.Counter | None = None) -> int:
        return sum(n for key, n in (self._count if counter is None else counter).items() if key[0] == kind)

    def by_operator(self, kind: str = "launch") -> collections.Counter:
        """Number of events of `kind` (one of KINDS) per operator."""
        return self._group(kind, lambda key: key[1])

    def by_site(self, kind: str = "sync") -> collections.Counter:
        """Number of events of `kind` (one of KINDS) per source line (`file:line`)."""
        return self._group(kind, lambda key: key[2])

    def rows(self) -> list[dict]:
        """All counts as a list of {kind, operator, site, count, bytes}, most frequent first."""
        return [
            {"kind": k, "operator": op, "site": at, "count": n, "bytes": self._bytes[k, op, at]}
            for (k, op, at), n in self._count.most_common()
        ]

    def summary(self) -> dict:
        """The totals as plain data."""
        names = (
            "launches",
            "views",
            "syncs",
            "h2d_copies",
            "h2d_bytes",
            "d2h_copies",
            "d2h_bytes",
            "fallbacks",
        )
        return {n: getattr(self, n) for n in (*names, "ai_cpu", "refused", "peak_bytes")}

    # ------------------------------------------------------------------ recording
    def add(self, kind: str, operator: str, where: str, nbytes: int) -> None:
        key = (kind, operator, where)
        self._count[key] += 1
        if nbytes:
            self._bytes[key] += nbytes

    def _group(self, kind: str, key_of) -> collections.Counter:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}: use one of {', '.join(KINDS)}")
        result: collections.Counter = collections.Counter()
        for key, n in self._count.items():
            if key[0] == kind:
                result[key_of(key)] += n
        return result

    # ------------------------------------------------------------------ display
    def __repr__(self) -> str:
        lines = [f"{name.replace('_', ' '):12} {value:,}" for name, value in self.summary().items()]
        for kind in ("sync", "fallback", "ai-cpu", "refused"):
            for where, n in self.by_site(kind).most_common(3):
                lines.append(f"  {kind} x{n} at {where}")
        return "simulated device (counts, not times)\n" + "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{name.replace('_', ' ')}</td><td style='text-align:right'>{value:,}</td></tr>"
            for name, value in self.summary().items()
        )
        places = "".join(
            f"<li>{kind} ×{n} at <code>{html.escape(os.sep.join(where.split(os.sep)[-2:]))}</code></li>"
            for kind in ("sync", "fallback", "ai-cpu", "refused")
            for where, n in self.by_site(kind).most_common(3)
        )
        return f"<b>simulated device</b> (counts, not times)<table>{cells}</table><ul>{places}</ul>"


active: list[Recording] = []  # the open recordings; kernels look at it before they pay for a call of `note`


def note(kind: str, operator: str, nbytes: int = 0) -> None:
    """Add one event to every open recording."""
    where = site() if any(r.sites for r in active) else ""
    for recording in active:
        recording.add(kind, operator, where if recording.sites else "", nbytes)


@contextlib.contextmanager
def record(sites: bool = True):
    """Record the work of the simulated devices in a `with` block; yields a `Recording`.

    sites: record source lines, which cost a few microseconds per launch.
    """
    recording = Recording(sites)
    before = [ledger.peak for ledger in memory.ledgers]
    for ledger in memory.ledgers:
        ledger.peak = ledger.now
    active.append(recording)
    try:
        yield recording
    finally:
        active.remove(recording)
        recording.peak_bytes = max(ledger.peak for ledger in memory.ledgers)
        for ledger, peak in zip(memory.ledgers, before, strict=False):
            ledger.peak = max(ledger.peak, peak)
