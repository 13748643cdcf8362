"""The kernels in Triton's interpreter. This folder is collected only in a process that interprets kernels.

Triton decides at its first import whether kernels are interpreted, so the variable must be set before:
TRITON_INTERPRET=1 pytest tests/kernels. See tests/kernels_process/test_kernels_suite.py.
"""

from __future__ import annotations

import pytest

from deskocr_kit.operators.kernels import launch

READY = launch.interpreted() and launch.why_not() is None
collect_ignore_glob = [] if READY else ["test_*.py"]


def pytest_collect_file(file_path, parent):
    """A file named on the command line is collected despite the list above: report what it needs."""
    if not READY and file_path.name.startswith("test_"):
        raise pytest.UsageError(f"{file_path.name} needs Triton (Linux) and TRITON_INTERPRET=1")


def pytest_report_header(config):
    return None if READY else "tests/kernels is left out: it needs Triton and TRITON_INTERPRET=1"
