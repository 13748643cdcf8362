"""Times of one page by phase, with the device idle at each boundary."""

from __future__ import annotations

import time

from model.observer import Observer

from ..device import synchronize
from ..reading.options import PageOptions
from .summary import gaps


class Clock(Observer):
    """Records when each phase has ended on the device, and when each token has reached the host.

    issued: when the host had launched all of vision and of prefill, before it waited for the device.
    """

    def __init__(self, device):
        self.device, self.ends, self.arrivals, self.issued = device, {}, [], {}
        synchronize(device)
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def phase(self, name: str) -> None:
        if name in ("vision", "prefill"):  # at the end of the others the host has already waited
            self.issued[name] = time.perf_counter()
            synchronize(self.device)
        self.ends[name] = time.perf_counter()
        if name == "decode":
            self.cpu = time.process_time() - self.cpu

    def token(self, tokens) -> None:
        self.arrivals.append(time.perf_counter())


def read(reader, image, options: PageOptions):
    """(Reading, run): the result of `reader.read`, and the times of its phases in seconds.

    run: preprocess, vision (includes embedding and placing), prefill, decode, post; ttft; e2e (to the last
    token); seconds (the whole request); gaps between tokens; cpu (CPU seconds of this process to e2e); issued
    (how long the host took to launch vision and prefill, before it waited).
    """
    clock = Clock(reader.model.device)
    reading = reader.read(image, options=options, observer=clock)
    end = time.perf_counter()
    start, ends, arrivals = clock.start, clock.ends, clock.arrivals
    borders = [start, *(ends[name] for name in ("preprocess", "vision", "prefill", "decode")), end]
    names = ("preprocess", "vision", "prefill", "decode", "post")
    run = {name: b - a for name, a, b in zip(names, borders, borders[1:], strict=False)}
    run |= {
        "ttft": arrivals[0] - start,
        "e2e": arrivals[-1] - start,
        "seconds": end - start,
        "cpu": clock.cpu,
        "issued": {
            "vision": clock.issued["vision"] - ends["preprocess"],
            "prefill": clock.issued["prefill"] - ends["vision"],
        },
        "gaps": [round(gap, 7) for gap in gaps(arrivals)],
    }
    return reading, run
