"""The launch cost and the bandwidth of a chip, from a trace of it.

Launch cost: where the device was idle before a kernel, the time from the previous start to this start is what
the host needs for one operator. Its middle half is the range. Bandwidth: bytes of inputs and outputs over
duration, of kernels that move at least BYTES; the best tenth is the range, because most kernels do not reach
the limit of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from .families import family_of_type
from .kernels import Trace, TraceError

FEWEST = 20  # gaps or kernels; fewer say nothing
BYTES = 4 << 20
PAUSE = 1000.0  # us; a longer gap is the host doing something else
#: Their time is arithmetic, or their shapes are not what they read.
NOT_MEMORY = ("matrix product", "attention", "convolution", "grouped product", "index", "index write")


def calibration(trace: Trace, chip: str) -> dict:
    """{"chip", "launch_us", "bandwidth_gbs"}: each a range {"low", "high", "source"}, or None if unknown.

    Raises TraceError if the trace gives neither, or is of a simulated NPU.
    """
    if trace.simulated:
        raise TraceError("a simulated NPU: its times are those of the host, and calibrate no chip")
    if any(kernel.core in ("CPU", "GPU") for kernel in trace.kernels) and chip.upper().startswith("910"):
        raise TraceError(f"{trace.source}: a trace of a {trace.kernels[0].core}, not of a {chip}")
    launch, bandwidth = launch_us(trace), bandwidth_gbs(trace)
    if launch is None and bandwidth is None:
        raise TraceError(
            f"{trace.source}: too few gaps between kernels and no shapes; record with start times and shapes "
            "(`deskocr profile` does)"
        )
    return {"chip": chip, "launch_us": launch, "bandwidth_gbs": bandwidth}


def launch_us(trace: Trace) -> dict | None:
    gaps = sorted(float(gap) for gap in trace.gaps() if 0 < gap <= PAUSE)
    if len(gaps) < FEWEST:
        return None
    low, high = quantile(gaps, 0.25), quantile(gaps, 0.75)
    return _range(low, high, f"{len(gaps)} gaps between kernels, first to third quartile", trace)


def bandwidth_gbs(trace: Trace) -> dict | None:
    rates = sorted(
        kernel.bytes / float(kernel.us) / 1e3
        for kernel in trace.kernels
        if kernel.bytes and kernel.bytes >= BYTES and kernel.us > 0
        and family_of_type(kernel.type) not in NOT_MEMORY
    )  # fmt: skip
    if len(rates) < FEWEST:
        return None
    source = f"{len(rates)} kernels of at least {BYTES >> 20} MB, ninth decile to largest"
    return _range(quantile(rates, 0.9), rates[-1], source, trace)


def _range(low: float, high: float, how: str, trace: Trace) -> dict:
    version = trace.about.get("cann_version")
    where = f", CANN {version}" if version else ""
    return {"low": round(low, 4), "high": round(high, 4), "source": f"measured: {how}{where}"}


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of sorted values, with linear interpolation."""
    at = share * (len(values) - 1)
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)
