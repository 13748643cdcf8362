"""Runs tests/kernels in a separate process: Triton decides at its import whether it interprets kernels.

Its conftest collects that folder only with TRITON_INTERPRET=1, which this file sets. By hand:
TRITON_INTERPRET=1 pytest tests/kernels
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT, TESTS

FOLDER = TESTS / "kernels"
ALREADY_THERE = os.environ.get("TRITON_INTERPRET") == "1"  # then pytest collects the folder itself
OLDEST = (3, 4)  # of Triton: the interpreter of older releases lacks what the kernels use


def missing() -> str:
    """Why kernels cannot be interpreted here, or ""."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (it exists for Linux only)"
    from importlib.metadata import version

    found = version("triton")
    older = tuple(map(int, found.split(".")[:2])) < OLDEST
    return f"Triton {found} is older than {OLDEST[0]}.{OLDEST[1]}" if older else ""


if not ALREADY_THERE:

    def passes(*arguments: str) -> None:
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        assert done.returncode == 0 and " passed" in last, done.stdout[-8000:] + done.stderr[-2000:]

    @pytest.mark.skipif(bool(missing()), reason=missing())
    def test_kernels_suite():
        unusual = ["tests/operators/test_unusual_calls.py", "tests/operators/test_conv2d_unusual_calls.py"]
        passes(*unusual, "-k", "triton or kernels")

    @pytest.mark.slow  # whole models, interpreted: a quarter of an hour or more
    @pytest.mark.skipif(bool(missing()), reason=missing())
    def test_slow_kernels_suite():
        passes("-m", "slow")
