"""Start of the benchmark in a process of its own.

torch_npu switches its task queue off in every process that looks like IPython or Jupyter, so times measured
in a notebook itself would not be those of a normal process. Ctrl-C reaches the child, which stores the
results until then.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from model.limited import START

from .spec import FILE, BenchSpec

# Variables by which a process recognises that it belongs to a notebook; the child does not get them.
NOTEBOOK = ("JPY_PARENT_PID", "JPY_SESSION_NAME", "MPLBACKEND")
INTERRUPTED = 130


class BenchFailed(RuntimeError):
    """The child ended with an error; the message is its last line, or refers to stderr."""


def bench(spec: BenchSpec, out: str | Path, quiet: bool = False) -> dict:
    """Measure in a fresh Python and return the content of out/bench.json.

    After an interrupt or a failure the results until then are in out/bench.partial.json, and an earlier
    bench.json is unchanged. Raises KeyboardInterrupt after an interrupt, and BenchFailed with the last line
    of the child after a failure.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if name not in NOTEBOOK}
    env["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[2]), env.get("PYTHONPATH", "")])
    )
    command = [sys.executable, "-c", START, "deskocr_kit.benchmark", str(out.resolve())]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True, env=env
    )
    assert child.stdin is not None  # it is a pipe
    child.stdin.write(spec.to_json())
    child.stdin.close()
    child.stdin = None
    try:
        _, errors = child.communicate()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)  # a terminal has sent it already; the child ignores the second one
        child.communicate()
        raise
    if child.returncode == INTERRUPTED:
        raise KeyboardInterrupt
    if child.returncode:
        words = (errors or "").strip().splitlines()[-1:] or [f"exit status {child.returncode}, see above"]
        raise BenchFailed(f"the benchmark stopped: {words[0]}")
    return json.loads((out / FILE).read_text(encoding="utf-8"))
