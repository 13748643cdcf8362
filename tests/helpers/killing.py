"""Kill a batch again and again, and finish it."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.stub_reader import reads


def start(given, out, devices: int, batch_size: int) -> subprocess.Popen:
    words = [sys.executable, "-m", "tests.helpers.stub_run", str(out), str(devices), str(batch_size)]
    return subprocess.Popen(
        [*words, *map(str, given)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def run_with_kills(
    given, out, counted: Path, kills: int, seed: int, devices: int = 0, batch_size: int = 2
) -> dict:
    """Kill `kills` runs at a random moment each, then let one end. Returns what the last run printed.

    A moment is drawn from the time at which pages are read: after the first pages of the run were noted.
    """
    rng, at = random.Random(seed), []
    for _ in range(kills):
        process = start(given, out, devices, batch_size)
        wanted = len(reads(counted)) + rng.randint(0, 4)
        late = time.monotonic() + 120
        while len(reads(counted)) <= wanted and process.poll() is None and time.monotonic() < late:
            time.sleep(0.004)
        time.sleep(rng.uniform(0, 0.06))
        at.append(len(reads(counted)))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    process = start(given, out, devices, batch_size)
    output, errors = process.communicate(timeout=600)
    return {"status": process.returncode, "output": output, "errors": errors, "killed_after": at}


def no_process_is_left(processes: set[int], seconds: float = 10) -> bool:
    """Whether all of these have ended, after waiting a while. Their numbers are not in use again so soon."""
    late = time.monotonic() + seconds
    while time.monotonic() < late:
        if not [each for each in processes if _works(each)]:
            return True
        time.sleep(0.2)
    return False


def _works(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
