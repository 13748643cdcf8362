"""Runs tests/simulator in a separate process, because installing the simulated NPU cannot be undone.

Its conftest collects that folder only with DESKOCR_DEVICE=npu-sim, which this file sets. By hand:
DESKOCR_DEVICE=npu-sim pytest tests/simulator
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT, TESTS

FOLDER = TESTS / "simulator"
ALREADY_THERE = os.environ.get("DESKOCR_DEVICE", "").startswith(
    "npu-sim"
)  # then pytest collects the folder itself


def run(*options: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DESKOCR_DEVICE": "npu-sim", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


def passed(done: subprocess.CompletedProcess) -> None:
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    assert done.returncode == 0 and " passed" in last, done.stdout[-8000:] + done.stderr[-2000:]


if not ALREADY_THERE:

    def test_simulator_suite():
        passed(run("-m", "not slow"))

    @pytest.mark.slow
    def test_slow_simulator_suite():
        passed(run("-m", "slow"))
