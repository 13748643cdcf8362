"""The simulated NPU in a process of its own: this one may already have another device, a real NPU included.

    report = prove_apart("as-believed", ["conv2d"], ["fp16"])
    refused = missing_apart("as-believed")            # {operator: times} while nano reads a page

The first is the same as `deskocr prove --device npu-sim:as-believed --slots conv2d --dtype fp16` on the
command line.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

PROVE = """
from deskocr_kit.prove import prove
answer = prove(f"npu-sim:{profile}", dtypes.split(","), "nano", slots.split(","), repeats=1)
"""
MISSING = """
from deskocr_kit.commands.demo import sample_pages
from deskocr_kit.device import pick
from deskocr_kit.port import missing
from deskocr_kit.reader import Reader
from model.processing import load_image
reader = Reader.load("nano", pick(f"npu-sim:{profile}", quiet=True), "fp32")
page = load_image(sample_pages()[0][0])
answer = missing(lambda model: reader.read(page, "free", max_new_tokens=1), reader.model)
"""
FRAME = """
import pickle, sys
path, {names} = sys.argv[1:]
{code}
with open(path, "wb") as file:
    pickle.dump(answer, file)
"""


def prove_apart(profile: str, slots: list[str], dtypes: list[str]):
    """A prove.report.Report of nano's sizes. Raises RuntimeError with the end of the child's error text."""
    return _apart(PROVE, profile=profile, slots=",".join(slots), dtypes=",".join(dtypes))


def missing_apart(profile: str) -> dict[str, int]:
    """{operator: times} that the profile refuses while nano reads a page. Raises as `prove_apart`."""
    return _apart(MISSING, profile=profile)


def _apart(code: str, **given: str):
    """What the child's `answer` is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answer"
        text = FRAME.format(names="".join(f"{name}, " for name in given), code=code)
        done = subprocess.run(
            [sys.executable, "-c", text, str(path), *given.values()],
            env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},  # a real torch_npu would be in the way
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            profile = given["profile"]
            raise RuntimeError(f"the simulated NPU, profile {profile}, failed: {done.stderr[-2000:]}")
        return pickle.loads(path.read_bytes())  # written by our own child a moment ago
