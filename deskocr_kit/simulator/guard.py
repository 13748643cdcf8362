"""Register the device "npu" in PyTorch's C++ core: device guard (current device) and hooks (for autograd).

torch >= 2.9 lets Python register both. Before that the C++ objects have to be built with ctypes: a copy of
the CPU's empty guard with the relevant methods replaced, stored where C10_REGISTER_GUARD_IMPL stores it.
Object layout: Itanium C++ ABI (Linux, macOS). This code was run on torch 2.6.0 x86-64; its prototype, with
the same layout, also on 2.8.0; 2.7 was not tried.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import types

import torch

from . import state

_PRIVATE_USE_1 = 20  # c10::DeviceType::PrivateUse1
_DEVICE_TYPES = 22  # c10::DeviceType::COMPILE_TIME_MAX_DEVICE_TYPES
_HAND_MADE_FOR = ((2, 6), (2, 7), (2, 8))
_keep: list = []  # ctypes objects that C++ points to for the rest of the process


def install(module: types.ModuleType) -> None:
    """Rename PrivateUse1 to "npu", make `module` torch.npu, register guard and hooks. Once per process."""
    if hasattr(torch._C, "_acc"):
        from torch.utils import backend_registration

        backend_registration._setup_privateuseone_for_python_backend("npu", backend_module=module)
        return
    version = tuple(int(x) for x in torch.__version__.split(".")[:2])
    if version not in _HAND_MADE_FOR and os.environ.get("DESKOCR_SIMULATOR_FORCE") != "1":
        raise RuntimeError(
            f"the simulated NPU is not tested with torch {torch.__version__}: use 2.6 to 2.8, or 2.9 and "
            "newer (DESKOCR_SIMULATOR_FORCE=1 tries anyway and may crash)"
        )
    torch.utils.rename_privateuse1_backend("npu")
    torch._register_device_module("npu", module)
    torch.utils.generate_methods_for_privateuse1_backend()
    _register_guard()
    _register_hooks()


def _library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(os.path.join(os.path.dirname(torch.__file__), "lib", name))


def _register_guard() -> None:
    pointer = ctypes.c_void_p
    registry = (pointer * _DEVICE_TYPES).in_dll(
        _library("libc10.so"), "_ZN3c104impl26device_guard_impl_registryE"
    )
    if registry[_PRIVATE_USE_1] or not registry[0]:
        raise RuntimeError("another backend has already registered a device guard for PrivateUse1")
    methods = ctypes.cast(ctypes.cast(registry[0], ctypes.POINTER(pointer))[0], ctypes.POINTER(pointer))
    table = (pointer * 26)(*[methods[i - 2] for i in range(26)])  # offset-to-top, type info, then the methods

    # A c10::Device is two bytes, type and index, passed as one 16-bit word.
    def set_device(_, device):
        if device >> 8 < 128:  # an index of -1 means no change
            state.current = device >> 8

    def exchange_device(_, device):
        before = state.current
        set_device(_, device)
        return _PRIVATE_USE_1 | before << 8

    function, word = ctypes.CFUNCTYPE, ctypes.c_uint16
    callbacks = [
        function(ctypes.c_int8, pointer)(lambda _: _PRIVATE_USE_1),  # type
        function(word, pointer, word)(exchange_device),
        function(word, pointer)(lambda _: _PRIVATE_USE_1 | state.current << 8),  # getDevice
        function(None, pointer, word)(set_device),
        function(None, pointer, word)(set_device),  # uncheckedSetDevice
    ]
    for slot, callback in enumerate(callbacks):
        table[2 + slot] = ctypes.cast(callback, pointer).value
    address = _stream_function()
    if address:
        for slot in (5, 6, 9):  # getStream, getDefaultStream, exchangeStream
            table[2 + slot] = address
    guard = (pointer * 2)(ctypes.addressof(table) + 16, 0)
    _keep.extend([table, guard, callbacks])
    registry[_PRIVATE_USE_1] = ctypes.addressof(guard)


def _stream_function() -> int | None:
    """Address of a function that returns Stream{npu:0, id 0}. Only backward() calls it.

    It returns two registers, which ctypes cannot do, so it is three machine instructions (set both, return).
    """
    code = {
        "x86_64": "b81400000031d2c3",
        "aarch64": "80028052010080d2c0035fd6",
        "arm64": "80028052010080d2c0035fd6",
    }.get(platform.machine())
    if code is None:
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a hardened kernel forbids writable code; inference works without it
        return None
    page.write(bytes.fromhex(code))
    _keep.append(page)
    return ctypes.addressof(ctypes.c_char.from_buffer(page))


def _register_hooks() -> None:
    """Register an at::PrivateUse1HooksInterface of ctypes callbacks; backward() gets the device from it."""
    pointer, function = ctypes.c_void_p, ctypes.CFUNCTYPE
    index, boolean = ctypes.c_int8, ctypes.c_bool
    allocator = _library("libc10.so")._ZN3c1015GetCPUAllocatorEv
    allocator.restype = pointer
    nothing = function(None, pointer)(lambda _: None)
    callbacks = [
        nothing,
        nothing,
        function(boolean, pointer, index)(lambda _, i: True),  # hasPrimaryContext
        nothing,  # init
        function(index, pointer)(lambda _: state.device_count),
        function(None, pointer, index)(lambda _, i: None),  # setCurrentDevice
        function(index, pointer)(lambda _: state.current),
        function(index, pointer, index)(lambda _, i: state.current),  # exchangeDevice
        function(index, pointer, index)(lambda _, i: state.current),  # maybeExchangeDevice
        function(boolean, pointer, pointer)(lambda _, p: False),  # isPinnedPtr
        function(pointer, pointer)(lambda _: allocator()),  # getPinnedMemoryAllocator
        function(ctypes.c_uint16, pointer, pointer)(lambda _, p: _PRIVATE_USE_1),  # getDeviceFromPtr
        *[nothing] * 8,
    ]
    table = (pointer * (2 + len(callbacks)))(0, 0, *[ctypes.cast(c, pointer).value for c in callbacks])
    hooks = (pointer * 2)(ctypes.addressof(table) + 16, 0)
    _keep.extend([table, hooks, callbacks])
    register = _library(
        "libtorch_cpu.so"
    )._ZN2at33RegisterPrivateUse1HooksInterfaceEPNS_25PrivateUse1HooksInterfaceE
    register.argtypes, register.restype = [pointer], None
    register(ctypes.addressof(hooks))
