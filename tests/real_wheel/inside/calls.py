"""The operators launched on the stub device. Needs TASK_QUEUE_ENABLE=0, else a second thread launches."""

from __future__ import annotations

import ctypes

import torch

_library = ctypes.CDLL("libascendcl.so")  # the library that torch_npu has loaded
_library.stub_calls.restype = ctypes.c_char_p


def forget() -> None:
    torch.npu.synchronize()
    _library.stub_forget()


def made() -> list[str]:
    """ "aclnnX" for the modern route, "aclop:X" for the legacy one, in order, since `forget`."""
    torch.npu.synchronize()
    return _library.stub_calls().decode().split()
