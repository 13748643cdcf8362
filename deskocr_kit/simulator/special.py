"""Kernels that cannot be made from a schema: allocation, copies between devices, storages, pinned memory."""

from __future__ import annotations

import math

import torch

from . import counters, memory, state
from .alias import CPU, fixed_alias, to_cpu, to_npu
from .kernels import CPU_KEYS, operator

_active = counters.active
_copying = ["aten::copy_"]  # the operator that copies, innermost last


def empty(size, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None):
    index = state.checked_index(device.index if device is not None else None)
    _check_room(index, math.prod(size), dtype)
    if memory_format is torch.preserve_format:
        memory_format = None
    made = torch.empty(size, dtype=dtype, device=CPU, memory_format=memory_format or torch.contiguous_format)
    return to_npu(made, index)


def empty_strided(size, stride, dtype=None, layout=None, device=None, pin_memory=None):
    index = state.checked_index(device.index if device is not None else None)
    _check_room(index, math.prod(size), dtype)
    return to_npu(torch.empty_strided(size, stride, dtype=dtype, device=CPU), index)


def _check_room(index: int, elements: int, dtype) -> None:
    """Check the limit of the card before the CPU allocates a tensor."""
    ledger = memory.ledgers[index]
    nbytes = elements * (dtype or torch.get_default_dtype()).itemsize
    if ledger.now + nbytes > ledger.limit:
        ledger.refuse(nbytes)


def copy_from(source, target, non_blocking=False):
    """Every copy with a device tensor ends here.

    A copy to the host makes the host wait, unless it is asynchronous and into pinned memory. A copy to the
    device does not.
    """
    up, down = source.is_cpu, target.is_cpu
    if _active:
        name = _copying[-1]
        if up:
            counters.note("h2d", name, source.nbytes)
        elif down:
            counters.note("d2h", name, source.nbytes)
            if not (non_blocking and is_pinned(target)):
                counters.note("sync", f"{name} (device to host)")
        else:
            counters.note("launch", name)
            if source.get_device() != target.get_device():
                counters.note("p2p", name, source.nbytes)
    (target if down else to_cpu(target)).copy_(source if up else to_cpu(source))
    return target


def copy_from_and_resize(source, target):
    target.resize_(source.shape)
    return copy_from(source, target)


def _to_copy(name: str):
    """`.to(...)` with PyTorch's own kernel, except asynchronous copies to the host.

    Those would request pinned memory from C++.
    """
    redispatch = operator(name).redispatch

    def to_copy(
        self, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None
    ):
        _copying.append(name)  # what ends in `copy_from` is counted under this name
        try:
            if non_blocking and device is not None and device.type == "cpu":
                form = memory_format or torch.preserve_format
                result = torch.empty_like(to_cpu(self), dtype=dtype or self.dtype, memory_format=form)
                result.untyped_storage()._pinned = True  # type: ignore[attr-defined]  # ours
                return copy_from(self, result, non_blocking=True)
            return redispatch(
                CPU_KEYS, self, dtype=dtype, layout=layout, device=device, pin_memory=pin_memory,
                non_blocking=non_blocking, memory_format=memory_format,
            )  # fmt: skip
        finally:
            _copying.pop()

    return to_copy


def local_scalar_dense(tensor):
    if _active:
        counters.note("sync", "aten::_local_scalar_dense")
        counters.note("d2h", "aten::_local_scalar_dense", tensor.element_size())
    return to_cpu(tensor).item()


def resize_(self, size, memory_format=None):
    needed = self.storage_offset() + torch.Size(size).numel()
    storage = self.untyped_storage()
    if needed * self.element_size() <= storage.nbytes():
        return self.set_(storage, self.storage_offset(), size)
    grown = torch.empty(needed, dtype=self.dtype, device=CPU)
    kept = storage.nbytes() // self.element_size()
    grown[:kept].copy_(fixed_alias(self).as_strided((kept,), (1,), 0))
    return self.set_(to_npu(grown, self.get_device()).untyped_storage(), self.storage_offset(), size)


def set_tensor(self, source):
    return self.set_(source.untyped_storage(), source.storage_offset(), source.shape, source.stride())


def set_storage(self, storage):
    return self.set_(storage, 0, (storage.nbytes() // self.element_size(),), (1,))


def set_nothing(self):
    return self.set_(torch.empty(0, dtype=self.dtype, device=self.device))


def pin_memory(self, device=None):
    result = self.clone() if self.is_cpu else self
    result.untyped_storage()._pinned = True
    return result


def is_pinned(self, device=None):
    return getattr(self.untyped_storage(), "_pinned", False)


def compatible_shallow_copy(self, other):
    """True keeps a Parameter, and so tied weights, the same object in `Module.to("npu")`, as in torch_npu."""
    return True


def _in_place(name: str):
    """An operator that changes a tensor's metadata: PyTorch's own kernel on the npu tensor."""
    redispatch = operator(name).redispatch
    return lambda *args, **kwargs: redispatch(CPU_KEYS, *args, **kwargs)


def all_kernels() -> dict[str, object]:
    """Kernel by operator name."""
    return {
        "aten::empty.memory_format": empty,
        "aten::empty_strided": empty_strided,
        "aten::_copy_from": copy_from,
        "aten::_copy_from_and_resize": copy_from_and_resize,
        "aten::_to_copy": _to_copy("aten::_to_copy"),
        "aten::_local_scalar_dense": local_scalar_dense,
        "aten::resize_": resize_,
        "aten::set_.source_Storage_storage_offset": _in_place("aten::set_.source_Storage_storage_offset"),
        "aten::as_strided_": _in_place("aten::as_strided_"),
        "aten::set_.source_Tensor": set_tensor,
        "aten::set_.source_Storage": set_storage,
        "aten::set_": set_nothing,
        "aten::_pin_memory": pin_memory,
        "aten::is_pinned": is_pinned,
        "aten::record_stream": lambda self, stream: None,
        "aten::_has_compatible_shallow_copy_type": compatible_shallow_copy,
    }
