"""Installs the simulated NPU for this folder, which is collected only in a separate process.

See tests/simulator_process/test_simulator_suite.py."""

from __future__ import annotations

import os

import pytest

SIMULATING = os.environ.get("DESKOCR_DEVICE", "").startswith("npu-sim")
collect_ignore_glob = [] if SIMULATING else ["test_*.py"]


def pytest_collect_file(file_path, parent):
    """A file named on the command line is collected despite the list above: report what it needs."""
    if not SIMULATING and file_path.name.startswith("test_"):
        raise pytest.UsageError(f"{file_path.name} needs the simulated NPU: set DESKOCR_DEVICE=npu-sim")


def pytest_report_header(config):
    return None if SIMULATING else "tests/simulator is left out: set DESKOCR_DEVICE=npu-sim to run it by hand"


if SIMULATING:
    from deskocr_kit import simulator

    simulator.install("all")


@pytest.fixture(autouse=True)
def everything_works():
    """Each test starts with the profile "all" and one device, and leaves no recording open."""
    yield
    assert not simulator.counters.active
    simulator.use("all")


@pytest.fixture
def recorded():
    with simulator.record() as recording:
        yield recording
