"""Devices: selection, synchronisation, timing, memory.

This kit imports torch_npu only here and in the substitutes.

    device = pick_device("auto")                 # DESKOCR_DEVICE, else npu, else cuda, else mps, else cpu
    device = pick_device("npu-sim:as-believed")  # the simulated NPU with a profile; the device is "npu:0"
    model.to(device, default_dtype(device))
    with Timer(device) as t: ...
    t.seconds, device_memory(device).peak
"""

from .graphs import GraphError, graphs
from .memory_stats import Memory, device_memory, free_cache, is_out_of_memory, reset_peak
from .selection import (
    KINDS,
    SIMULATED,
    backend_of,
    default_dtype,
    describe_device,
    device_count,
    is_simulated,
    pick_device,
    seed_everything,
)
from .timing import Event, Timer, synchronize
from .torch_import import AUTOLOAD, DeviceError, explain, import_torch, torch_npu_problem

__all__ = [
    "AUTOLOAD",
    "KINDS",
    "SIMULATED",
    "DeviceError",
    "Event",
    "GraphError",
    "Memory",
    "Timer",
    "backend_of",
    "default_dtype",
    "describe_device",
    "device_count",
    "device_memory",
    "explain",
    "free_cache",
    "graphs",
    "import_torch",
    "is_out_of_memory",
    "is_simulated",
    "pick_device",
    "reset_peak",
    "seed_everything",
    "synchronize",
    "torch_npu_problem",
]  # fmt: skip
