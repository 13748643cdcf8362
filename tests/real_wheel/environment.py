"""A temporary environment with a real torch-npu and its torch, never the environment of the kit.

Kept under ~/.cache/deskocr-tests (or DESKOCR_TEST_CACHE), so that a rerun takes seconds; delete it freely.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import ROOT

from . import stubs

TORCH_NPU = "2.13.0"  # the wheels of both names exist for Python 3.10-3.14, and torch also as a CPU build
PACKAGES = (
    f"torch=={TORCH_NPU}", f"torch-npu=={TORCH_NPU}",
    "numpy", "pyyaml", "safetensors", "transformers", "rich", "typer", "pillow", "pip>=23.3", "uv",
)  # fmt: skip
INSIDE = Path(__file__).with_name("inside")
CACHE = Path(os.environ.get("DESKOCR_TEST_CACHE") or Path.home() / ".cache" / "deskocr-tests")

UNREACHABLE = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|Network is unreachable"
    r"|Connection (refused|timed out|to \S+ timed out)|ConnectTimeoutError|ReadTimeoutError|ProxyError"
    r"|error sending request|dns error"
)
# Variables of this process that torch, torch_npu or the loader read; they would override the test.
_FOREIGN = re.compile(r"PYTHON|PYTEST|TORCH|ASCEND|TASK_QUEUE|LD_LIBRARY_PATH|DESKOCR|JPY_|STUB_")


class NoRegistry(Exception):
    """No package registry can be reached; the message is that line of pip or uv."""


def pip(python: str | Path, *arguments: str, seconds: int = 1800) -> str:
    """The output of pip. Raises NoRegistry without a network, else AssertionError with the output."""
    command = [str(python), "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        words = done.stderr + done.stdout
        unreachable = [line for line in words.splitlines() if UNREACHABLE.search(line)]
        if unreachable:
            raise NoRegistry(unreachable[0].strip())
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}\n{words[-4000:]}")
    return done.stdout


@dataclass(frozen=True)
class Environment:
    python: Path
    libraries: Path  # the stub CANN

    def run(self, *arguments: str | Path, cann: bool, stdin: str = "", **variables: str):
        """Run the Python of this environment; `cann`: with the stub libraries and one card, or neither."""
        env = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
        env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if cann:
            env |= {"LD_LIBRARY_PATH": str(self.libraries), "STUB_NPU_COUNT": "1"}
        command = [str(self.python), *map(str, arguments)]
        return subprocess.run(
            command, env=env | variables, input=stdin, capture_output=True, text=True, cwd=CACHE, timeout=900
        )


def build() -> Environment:
    """Make the environment and the libraries if they do not exist. Raises NoRegistry."""
    wanted = "\n".join([*PACKAGES, sys.version])
    place = CACHE / f"torch-npu-{TORCH_NPU}-cp{sys.version_info[0]}{sys.version_info[1]}"
    python, stamp = place / "bin" / "python", place / "made-of.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip(python, "install", "--progress-bar=off", *PACKAGES)
        stamp.write_text(wanted)
    packages = next((place / "lib").glob("python3.*/site-packages"))
    sources = (Path(stubs.__file__), stubs.BEHAVIOUR)
    digest = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:12]
    libraries = place / f"cann-{digest}"
    if not (libraries / "done").exists():
        stubs.build(packages, libraries)
        (libraries / "done").touch()
    return Environment(python, libraries)
