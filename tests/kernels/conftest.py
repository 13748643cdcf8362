"""The kernels in Triton's interpreter. This folder is collected only in a process that interprets kernels.

Triton decides at its first import whether kernels are interpreted, so the variable must be set before:
TRITON_INTERPRET=1 pytest tests/kernels. See tests/kernels_process/test_kernels_suite.py.
"""

from __future__ import annotations

import pytest

from deskocr_kit.operators.kernels import launch
from tests.helpers.kernel_addresses import before_their_mask, outside_accesses

READY = launch.interpreted() and launch.why_not() is None
collect_ignore_glob = [] if READY else ["test_*.py"]


def pytest_collect_file(file_path, parent):
    """A file named on the command line is collected despite the list above: report what it needs."""
    if not READY and file_path.name.startswith("test_"):
        raise pytest.UsageError(f"{file_path.name} needs Triton (Linux) and TRITON_INTERPRET=1")


def pytest_report_header(config):
    return None if READY else "tests/kernels is left out: it needs Triton and TRITON_INTERPRET=1"


@pytest.fixture(autouse=True, scope="module")
def accesses_stay_in_their_tensors(request):
    """For every kernel of the kit and every shape that these tests try."""
    if request.module.__name__.endswith(("test_addresses", "test_puzzles")):  # kernels of their own
        yield
        return
    with outside_accesses(before_their_mask()) as found:
        yield
    assert not found, f"addresses outside of the tensors, on an NPU if the mask excludes them: {found}"
