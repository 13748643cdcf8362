"""`prove` on the simulated NPU in a process of its own: this one may already have another device.

    report = prove_apart("as-believed", ["conv2d"], ["fp16"])

The same as `deskocr prove --device npu-sim:as-believed --slots conv2d --dtype fp16` on the command line.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

CODE = """
import pickle, sys
from deskocr_kit.prove import prove
profile, slots, dtypes, path = sys.argv[1:]
report = prove(f"npu-sim:{profile}", dtypes.split(","), "nano", slots.split(","), repeats=1)
with open(path, "wb") as file:
    pickle.dump(report, file)
"""


def prove_apart(profile: str, slots: list[str], dtypes: list[str]):
    """A prove.report.Report of nano's sizes. Raises RuntimeError with the end of the child's error text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        done = subprocess.run(
            [sys.executable, "-c", CODE, profile, ",".join(slots), ",".join(dtypes), str(path)],
            env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},  # a real torch_npu would be in the way
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"prove on npu-sim:{profile} failed: {done.stderr[-2000:]}")
        return pickle.loads(path.read_bytes())  # written by our own child a moment ago
