"""One memory, two devices: convert a CPU tensor to an npu tensor and back without a copy.

* CPU -> npu: export the CPU tensor as a DLPack capsule, overwrite the capsule's device field (CPU is 1; 12 is
  DLPack's "extension device", which ATen maps to PrivateUse1) and import it again. The result is a plain
  torch.Tensor with a real storage on `npu:i`; the capsule keeps the CPU memory alive.
* npu -> CPU: the CPU tensor is kept as an attribute of the npu *storage's* Python object. PyTorch keeps that
  object as long as the C++ storage, so every view finds it. (An attribute of the tensor would leak into
  torch.save and deepcopy.)
"""

from __future__ import annotations

import ctypes

import torch

from .memory import Allocation

CPU = torch.device("cpu")
_EXTENSION_DEVICE = 12  # kDLExtDev

# A capsule points to {void *data; int32 device_type; int32 device_id; ...}: words 0 and 1 of eight bytes
# each.
_words_of = ctypes.pythonapi.PyCapsule_GetPointer
_words_of.restype, _words_of.argtypes = ctypes.POINTER(ctypes.c_int64), [ctypes.py_object, ctypes.c_char_p]
_to_capsule, _from_capsule = torch._C._to_dlpack, torch._C._from_dlpack
_storage_at = torch._C._construct_storage_from_data_pointer


def to_npu(tensor: torch.Tensor, index: int = 0) -> torch.Tensor:
    """A tensor on `npu:index` with the memory of `tensor` (on the CPU), its shape, strides and dtype."""
    if tensor.is_neg() or tensor.is_complex():  # a capsule has no flags for "conjugated" and "negated"
        tensor = tensor.resolve_conj().resolve_neg()
    capsule = _to_capsule(tensor)
    _words_of(capsule, b"dltensor")[1] = _EXTENSION_DEVICE | index << 32
    result = _from_capsule(capsule)
    storage = result.untyped_storage()
    storage._allocation = Allocation(index, storage.nbytes())  # type: ignore[attr-defined]  # ours
    storage._cpu = tensor  # type: ignore[attr-defined]  # ours
    return result


def to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU tensor with the memory of `tensor` (on an npu), its shape, strides and dtype.

    The npu storage begins at the first element of the CPU tensor, so the offsets add up.
    """
    try:
        base = tensor.untyped_storage()._cpu  # type: ignore[attr-defined]  # of `to_npu`
    except AttributeError:  # a storage created by C++ (as in the legacy unpickler): host memory too
        return fixed_alias(tensor)
    dtype = tensor.dtype
    if tensor.is_neg():
        return to_cpu(tensor._neg_view())._neg_view()
    if dtype.is_complex and tensor.is_conj():
        return to_cpu(tensor.conj()).conj()
    if base.dtype is not dtype:
        return fixed_alias(tensor)
    shape, stride, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
    if not offset and base.shape == shape and base.stride() == stride:
        return base
    return base.as_strided(shape, stride, base.storage_offset() + offset)


def fixed_alias(tensor: torch.Tensor) -> torch.Tensor:
    """Like `to_cpu`, but with a storage that cannot be resized.

    `out=` arguments need it: a CPU operator that resizes an ordinary alias would free the memory of the npu
    tensor. Also for views with another dtype.
    """
    storage = tensor.untyped_storage()
    memory = _storage_at(storage.data_ptr(), CPU, storage.nbytes())
    result = torch.empty(0, dtype=tensor.dtype, device=CPU).set_(
        memory, tensor.storage_offset(), tensor.shape, tensor.stride()
    )
    result._keep_alive = storage  # type: ignore[attr-defined]  # ours
    return result
