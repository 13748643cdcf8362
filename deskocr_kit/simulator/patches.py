"""Where PyTorch asks a backend for C++ that a Python one cannot have: storages by size, generators,
torch.load."""

from __future__ import annotations

import torch

from .alias import CPU


def _npu(device) -> bool:
    return device is not None and torch.device(device).type == "npu"


def storages() -> None:
    """`torch.UntypedStorage(n, device="npu")` would crash the process: there is no C++ allocator behind the
    device."""
    kind = torch.UntypedStorage
    original = kind.__new__

    def new(cls, *args, **kwargs):
        if not _npu(kwargs.get("device")):
            return original(cls, *args, **kwargs)
        first = args[0] if args else 0
        size = first if isinstance(first, int) else len(first)
        return torch.empty(size, dtype=torch.uint8, device=kwargs["device"]).untyped_storage()

    kind.__new__ = staticmethod(new)


def loading() -> None:
    """torch.load with npu tensors in the file, or map_location="npu:0". Files name the device as torch_npu's
    do."""

    def tag(storage):
        return None  # PyTorch writes "npu:0" by itself

    def restore(storage, location: str):
        if location == "npu" or location.startswith("npu:"):
            content = torch.empty(0, dtype=torch.uint8, device=CPU).set_(storage)
            return content.to(torch.device(location)).untyped_storage()
        return None

    torch.serialization.register_package(5, tag, restore)


def generators() -> None:
    """`torch.Generator(device="npu")` is a CPU generator: the random numbers are the CPU's."""
    original = torch.Generator

    class Generator(original):
        def __new__(cls, device="cpu"):
            return original.__new__(cls, device="cpu" if _npu(device) else device)

    Generator.__doc__, Generator.__module__ = original.__doc__, original.__module__
    torch.Generator = Generator


def accelerator(module) -> None:
    """torch.accelerator would ask C++ to wait for the device, and for the figures of its allocator."""
    names = "synchronize empty_cache memory_allocated max_memory_allocated memory_reserved"
    names += " max_memory_reserved reset_peak_memory_stats memory_stats"
    for name in names.split():
        if hasattr(getattr(torch, "accelerator", None), name):
            setattr(torch.accelerator, name, getattr(module, name))


def streams() -> None:
    """`Tensor.record_stream` takes C++ streams only; with one stream there is nothing to record."""
    original = torch.Tensor.record_stream

    def record_stream(self, stream):
        return None if self.device.type == "npu" else original(self, stream)

    torch.Tensor.record_stream = record_stream
