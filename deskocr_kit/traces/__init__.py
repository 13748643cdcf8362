"""Read what a profiler measured, say which substitute would remove what, and calibrate predictions."""

from __future__ import annotations

from .compare import compare_traces
from .folder import read_trace
from .kernels import Kernel, Total, Trace, TraceError

__all__ = ["Kernel", "Total", "Trace", "TraceError", "compare_traces", "read_trace"]
