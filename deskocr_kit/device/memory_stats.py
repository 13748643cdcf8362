"""Memory of a device, and detection of out-of-memory errors. Exported by deskocr_kit.device."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass

from .torch_import import import_torch


@dataclass(frozen=True)
class Memory:
    """Bytes: `allocated` and `peak` of this process, `total` of the device; None if not available.

    On the CPU the resident set of the whole process counts, on other devices the memory of torch's tensors.
    """

    allocated: int
    peak: int | None
    total: int | None


def device_memory(device) -> Memory:
    """Memory of this process on the device now, its peak since `reset_peak`, and the total."""
    device = import_torch().device(device)
    backend = _module(device)
    if device.type == "mps":
        return Memory(backend.current_allocated_memory(), None, backend.recommended_max_memory())
    if device.type == "cpu":
        return _host_memory()
    total = backend.mem_get_info(device)[1]
    return Memory(backend.memory_allocated(device), backend.max_memory_allocated(device), total)


def reset_peak(device) -> bool:
    """Reset the peak. Returns False if the device (or the CPU of this system) does not support it."""
    device = import_torch().device(device)
    if device.type == "cpu":
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # Linux: reset the high-water mark of the resident set
        except OSError:
            return False
        return True
    if device.type == "mps":
        return False
    _module(device).reset_peak_memory_stats(device)
    return True


def free_cache(device) -> None:
    """Collect garbage and return cached blocks to the device, for other processes and the next allocation."""
    import gc

    gc.collect()
    if import_torch().device(device).type != "cpu":
        _module(device).empty_cache()


def _host_memory() -> Memory:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            rows = dict(line.split(":", 1) for line in file if line.startswith("Vm"))
        resident, peak = (int(rows[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return Memory(resident, peak, total)
    except (OSError, KeyError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Memory(peak, peak, total)


# 200000, 207001, 207005 and 207018 are acl's codes for "no memory"; EL0004 is the driver's.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|\bEL0004\b"
    r"|(error code|errorcode|runtime result|retcode|ret)\s*(is|=|:)\s*(200000|207001|207005|207018)\b",
    re.IGNORECASE,
)
# An invalid size, read back from a device after an earlier failure. Less work would not help.
_GARBAGE_SIZE = "Tried to allocate more than 1EB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a device or the host is out of memory, so that less work may fit.

    torch_npu raises a plain RuntimeError up to its 7.3 builds and torch.OutOfMemoryError from 26.0 on; CUDA,
    MPS and the CPU have their own errors. Checks the whole chain of causes.
    """
    seen = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = str(cause)
        if _GARBAGE_SIZE in text:
            return False
        if isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            return True
        if isinstance(cause, (RuntimeError, OSError)) and _OUT_OF_MEMORY.search(text):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _module(device):
    return getattr(import_torch(), device.type)
