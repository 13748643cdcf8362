"""The benchmark's own process.

torch_npu switches its task queue off in any process that looks like IPython or Jupyter, so a notebook that
timed an NPU itself would time another device. Ctrl-C reaches the child, which stores what is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from .spec import FILE, BenchSpec

# How a process learns that it belongs to a notebook: not for the child.
NOTEBOOK = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "MPLBACKEND")
INTERRUPTED = 130


class BenchFailed(RuntimeError):
    """The child ended with an error; its last line, or that it stands on stderr."""


def bench(spec: BenchSpec, out: str | Path, quiet: bool = False) -> dict:
    """Measure in a fresh Python and return the content of out/bench.json.

    Interrupted or failed: what was done is in out/bench.partial.json, and an earlier bench.json stays.
    Raises KeyboardInterrupt after an interrupt, BenchFailed with the child's last words after a failure.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name not in NOTEBOOK}
    env["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[2]), env.get("PYTHONPATH", "")])
    )
    command = [sys.executable, "-m", "deskocr_kit.benchmark", str(out.resolve())]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True, env=env
    )
    child.stdin.write(spec.to_json())
    child.stdin.close()
    child.stdin = None
    try:
        _, told = child.communicate()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)  # a terminal sent it already; the child ignores the second
        child.communicate()
        raise
    if child.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if child.returncode:
        words = (told or "").strip().splitlines()[-1:] or [f"exit status {child.returncode}, see above"]
        raise BenchFailed(f"the benchmark stopped: {words[0]}")
    return json.loads((out / FILE).read_text(encoding="utf-8"))
