"""Patches of PyTorch for C++ parts that a Python backend cannot have: storages, generators, torch.load."""

from __future__ import annotations

import torch

from .alias import CPU


def _npu(device) -> bool:
    return device is not None and torch.device(device).type == "npu"


def storages() -> None:
    """Patch `torch.UntypedStorage(n, device="npu")`, which would crash: the device has no C++ allocator."""
    kind = torch.UntypedStorage
    original = kind.__new__

    def new(cls, *args, **kwargs):
        if not _npu(kwargs.get("device")):
            return original(cls, *args, **kwargs)
        first = args[0] if args else 0
        size = first if isinstance(first, int) else len(first)
        return torch.empty(size, dtype=torch.uint8, device=kwargs["device"]).untyped_storage()

    kind.__new__ = staticmethod(new)  # type: ignore[method-assign]


def loading() -> None:
    """Support torch.load of npu tensors and map_location="npu:0". Files name the device as torch_npu does."""

    def tag(storage):
        return None  # PyTorch itself writes "npu:0"

    def restore(storage, location: str):
        if location == "npu" or location.startswith("npu:"):
            content = torch.empty(0, dtype=torch.uint8, device=CPU).set_(storage)
            return content.to(torch.device(location)).untyped_storage()
        return None

    torch.serialization.register_package(5, tag, restore)


def generators() -> None:
    """Make `torch.Generator(device="npu")` a CPU generator."""
    original = torch.Generator

    class Generator(torch.Generator):
        def __new__(cls, device="cpu"):
            name = "cpu" if _npu(device) else device
            return super().__new__(cls, device=name)  # type: ignore[call-arg]  # the stubs have __init__

    Generator.__doc__, Generator.__module__ = original.__doc__, original.__module__
    torch.Generator = Generator  # type: ignore[misc]


def accelerator(module) -> None:
    """Redirect functions of torch.accelerator that would call C++ (synchronise, memory) to `module`."""
    names = "synchronize empty_cache memory_allocated max_memory_allocated memory_reserved"
    names += " max_memory_reserved reset_peak_memory_stats memory_stats"
    for name in names.split():
        if hasattr(getattr(torch, "accelerator", None), name):
            setattr(torch.accelerator, name, getattr(module, name))


def streams() -> None:
    """Make `Tensor.record_stream` do nothing: it needs C++ streams, and there is only one stream."""
    original = torch.Tensor.record_stream

    def record_stream(self, stream):
        return None if self.device.type == "npu" else original(self, stream)

    torch.Tensor.record_stream = record_stream  # type: ignore[method-assign]
