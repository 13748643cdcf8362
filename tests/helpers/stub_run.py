"""python -m tests.helpers.stub_run OUT DEVICES BATCH_SIZE PAGE…: a batch with the stub reader.

DEVICES: 0 reads in this process, n with n workers, rayN with N actors of a local Ray.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from deskocr_kit.batch.devices import LocalDevice, WorkerDevice
from deskocr_kit.batch.ray_data import RayCluster
from deskocr_kit.batch.run import Plan, run
from deskocr_kit.batch.sources import sources
from deskocr_kit.reading.options import PageOptions
from tests.helpers.stub_reader import load


def main(out: str, devices: str, batch_size: str, *pages: str) -> int:
    options = PageOptions()
    places: list = [LocalDevice(load(), options)]
    if devices.startswith("ray"):
        places = [RayCluster(load, "cpu", options, workers=int(devices[3:]))]
    elif int(devices):
        places = [WorkerDevice(load, f"stub{i}", options) for i in range(int(devices))]
    plan = Plan(batch_size=int(batch_size), workers=2, formats=("md",), gallery=True)
    summary = run(sources(pages), Path(out), places, options, plan)
    print(summary)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB, {summary.seconds:.1f} s")
    return 1 if summary.failed or summary.pending or summary.stopped else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
