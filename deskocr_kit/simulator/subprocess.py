"""Run a function in a separate process, which can have the simulated NPU whatever this process has.

    rows = run_in_subprocess(function, "as-believed", ["conv2d"])

The function is passed by name, so it must be importable. Arguments and result are pickled.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_in_subprocess(function: Callable, *args):
    """`function(*args)` in a new Python process without a real torch_npu.

    Raises:
        RuntimeError: the process failed; with the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call"
        path.write_bytes(pickle.dumps((function.__module__, function.__name__, args)))
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(path)],
            env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},  # a real torch_npu would conflict
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{function.__name__} failed in a subprocess: {done.stderr[-2000:]}")
        return pickle.loads(path.read_bytes())  # safe: our own child process wrote it


def main(path: Path) -> None:
    """Run the call in the file and replace it by its result. For the child process."""
    module, name, args = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(getattr(importlib.import_module(module), name)(*args)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
