"""Synchronise with a device and measure time on it."""

from __future__ import annotations

import time

from .selection import backend_of
from .torch_import import import_torch


def synchronize(device) -> None:
    """Wait until the device has finished all its work."""
    if import_torch().device(device).type != "cpu":
        backend_of(device).synchronize()


class Event:
    """A point in the stream of a device, or on the host's clock if the device has no events."""

    def __init__(self, device):
        self.device = import_torch().device(device)
        timed = self.device.type in ("npu", "cuda")
        self._event = backend_of(self.device).Event(enable_timing=True) if timed else None
        self._time: float | None = None

    def record(self) -> Event:
        if self._event is not None:
            self._event.record()
        else:
            synchronize(self.device)
            self._time = time.perf_counter()
        return self

    def seconds_to(self, later: Event) -> float:
        """Seconds from this event to a later one; waits for the later one."""
        if self._event is None:
            assert self._time is not None and later._time is not None, "record both marks first"
            return later._time - self._time
        assert later._event is not None  # both marks are of one device
        later._event.synchronize()
        return self._event.elapsed_time(later._event) / 1e3


class Timer:
    """`with Timer(device) as t: ...`; then `t.seconds` is the wall time between two synchronisations."""

    def __init__(self, device):
        self.device = device
        self.seconds = float("nan")

    def __enter__(self) -> Timer:
        synchronize(self.device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self._start
