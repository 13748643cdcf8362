"""The module `torch.npu` of the simulated device: the commonly used part of torch_npu's.

There is one stream and nothing is asynchronous, so streams and events only keep order and the host's clock.
That time is unrelated to the time of a real NPU.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
import types

import torch

from . import counters, memory, state


def _index(device=None) -> int:
    if device is None or isinstance(device, int):
        return state.checked_index(device)
    return state.checked_index(torch.device(device).index)


class Event:
    """A point in the stream; `elapsed_time` is host time in milliseconds."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False):
        self._time: float | None = None

    def record(self, stream=None) -> None:
        self._time = time.perf_counter()

    def synchronize(self) -> None:
        _synced("torch.npu.Event.synchronize")

    def wait(self, stream=None) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, end: Event) -> float:
        if self._time is None or end._time is None:
            raise RuntimeError("elapsed_time: both events must have been recorded")
        return (end._time - self._time) * 1e3


class Stream:
    """The only stream."""

    def __init__(self, device=None, priority: int = 0):
        self.device = torch.device("npu", _index(device))

    def synchronize(self) -> None:
        _synced("torch.npu.Stream.synchronize")

    def wait_stream(self, stream) -> None: ...

    def wait_event(self, event) -> None: ...

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record()
        return event

    def query(self) -> bool:
        return True

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None: ...


class device(contextlib.AbstractContextManager):
    """Context manager that selects the current device; a negative index changes nothing."""

    def __init__(self, device):
        self.index = -1 if isinstance(device, int) and device < 0 else _index(device)

    def __enter__(self):
        self.before = state.current
        if self.index >= 0:
            state.current = self.index
        return self

    def __exit__(self, *error):
        state.current = self.before


def _synced(what: str) -> None:
    if counters.active:
        counters.note("sync", what)


def _set_device(device) -> None:
    state.current = _index(device)


def _nothing(*args, **kwargs) -> None: ...


def _reset_peak(device=None) -> None:
    ledger = memory.ledgers[_index(device)]
    ledger.peak = ledger.now


def _mem_get_info(device=None) -> tuple[int, int]:
    ledger = memory.ledgers[_index(device)]
    return ledger.total - ledger.now, ledger.total


def _set_fraction(fraction: float, device=None) -> None:
    ledger = memory.ledgers[_index(device)]
    ledger.set_limit(ledger.total, float(fraction))


def _memory_stats(device=None) -> dict:
    ledger = memory.ledgers[_index(device)]
    return {"allocated_bytes.all.current": ledger.now, "allocated_bytes.all.peak": ledger.peak}


def _memory_summary(device=None, abbreviated: bool = False) -> str:
    ledger = memory.ledgers[_index(device)]
    figures = f"{ledger.now} bytes held, {ledger.peak} at most, {ledger.limit} allowed"
    return f"simulated NPU {ledger.index}: {figures}"


def _amp() -> types.ModuleType:
    """torch.npu.amp: autocast and GradScaler without a device name, as in older programs."""
    amp = types.ModuleType("torch.npu.amp")

    def autocast(enabled: bool = True, dtype=torch.float16, cache_enabled: bool = True):
        return torch.amp.autocast("npu", dtype, enabled, cache_enabled)

    vars(amp).update(autocast=autocast, GradScaler=functools.partial(torch.amp.GradScaler, "npu"))
    sys.modules["torch.npu.amp"] = amp
    return amp


def build() -> types.ModuleType:
    """A fresh module object for `torch.npu`."""
    module = types.ModuleType(
        "torch.npu", "Simulated NPU: computed by the CPU. No time measured on it is an NPU time."
    )

    def now(device=None):
        return memory.ledgers[_index(device)].now

    def peak(device=None):
        return memory.ledgers[_index(device)].peak

    def properties(device=None):
        total = memory.ledgers[_index(device)].total
        return types.SimpleNamespace(name=module.get_device_name(), total_memory=total)

    contents = {
        "simulated": True,
        # devices
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": _nothing,
        "_lazy_init": _nothing,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: state.device_count,
        "current_device": lambda: state.current,
        "set_device": _set_device,
        "device": device,
        "get_device_capability": lambda device=None: None,
        "get_device_properties": properties,
        "is_bf16_supported": lambda: True,
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
        # order
        "synchronize": lambda device=None: _synced("torch.npu.synchronize"),
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "default_stream": Stream,
        "stream": lambda stream: stream if stream is not None else contextlib.nullcontext(),
        "set_stream": _nothing,
        # memory
        "empty_cache": _nothing,
        "ipc_collect": _nothing,
        "memory_allocated": now,
        "memory_reserved": now,
        "max_memory_allocated": peak,
        "max_memory_reserved": peak,
        "reset_peak_memory_stats": _reset_peak,
        "reset_max_memory_allocated": _reset_peak,
        "mem_get_info": _mem_get_info,
        "memory_stats": _memory_stats,
        "memory_summary": _memory_summary,
        "set_per_process_memory_fraction": _set_fraction,
        # random numbers: the CPU's generator
        "manual_seed": torch.manual_seed,
        "manual_seed_all": _nothing,  # torch.manual_seed calls it after seeding the CPU
        "seed": torch.seed,
        "seed_all": _nothing,
        "initial_seed": torch.initial_seed,
        "get_rng_state": lambda device="npu": torch.get_rng_state(),
        "set_rng_state": lambda new_state, device="npu": torch.set_rng_state(new_state),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
        # switches of torch_npu
        "set_compile_mode": _nothing,
        "set_option": _nothing,
        "is_jit_compile_false": lambda: True,
        "config": types.SimpleNamespace(allow_internal_format=False),
        "matmul": types.SimpleNamespace(allow_hf32=False),
        "conv": types.SimpleNamespace(allow_hf32=False),
        "is_current_stream_capturing": lambda: False,
        "can_device_access_peer": lambda device, peer: True,
        # mixed precision
        "amp": _amp(),
        "is_autocast_enabled": lambda: torch.is_autocast_enabled("npu"),
        "set_autocast_enabled": lambda enabled: torch.set_autocast_enabled("npu", enabled),
        "get_autocast_dtype": lambda: torch.get_autocast_dtype("npu"),
        "set_autocast_dtype": lambda dtype: torch.set_autocast_dtype("npu", dtype),
    }
    for name, value in contents.items():
        setattr(module, name, value)
    return module
