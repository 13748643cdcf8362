"""deskocr_kit.device on the real torch_npu: its settings, its description, and each helper."""

from __future__ import annotations

import contextlib
import io
import json

import torch
import torch.nn.functional as F

from deskocr_kit.device import (
    DeviceError,
    Event,
    Timer,
    default_dtype,
    describe_device,
    device_count,
    device_memory,
    free_cache,
    is_out_of_memory,
    is_simulated,
    pick_device,
    reset_peak,
    seed_everything,
    synchronize,
)
from tests.real_wheel.inside import calls


def convolution() -> list[str]:
    x, weight = torch.ones(1, 3, 32, 32).half().to("npu"), torch.ones(8, 3, 16, 16).half().to("npu")
    calls.forget()
    F.conv2d(x, weight, stride=16)
    return calls.made()


def said(action) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as text:
        action()
    return text.getvalue()


def refused(action) -> str:
    try:
        action()
    except DeviceError as error:
        return str(error)
    return ""


# A build before 26.0 on a 910B starts with private formats; the stub has no default for jit_compile.
torch.npu.set_compile_mode(jit_compile=True)
torch.npu.config.allow_internal_format = True
found = {"count": device_count("npu"), "convolution before": convolution()}
found["said"] = said(lambda: pick_device("npu"))
found["said again"] = said(lambda: pick_device("npu"))
device = pick_device("auto")
found["device"] = str(device)
found["convolution after"] = convolution()
found["jit_compile is false"] = torch.npu.is_jit_compile_false()
found["too high"] = refused(lambda: pick_device("npu:7"))
found["dtype"] = str(default_dtype(device))
found["describe"] = describe_device(device)
found["simulated"] = is_simulated(device)

seed_everything(7)
first = torch.npu.initial_seed()
seed_everything(8)
found["seeds"] = [first, torch.npu.initial_seed()]

free_cache(device)
reset_peak(device)
before = device_memory(device)
x = torch.zeros(1 << 20, dtype=torch.float16, device=device)
synchronize(device)
held = device_memory(device)
del x
found["memory"] = {
    "grew": held.allocated - before.allocated,
    "peak": held.peak - before.allocated,
    "after": device_memory(device).allocated - before.allocated,
    "total": held.total,
}

one = Event(device).record()
with Timer(device) as timer:
    torch.ones(8, device=device) + 1
found["event seconds"] = one.seconds_to(Event(device).record())
found["timer seconds"] = timer.seconds

try:
    torch.empty(1 << 33, dtype=torch.uint8, device=device)
    found["out of memory"] = None
except Exception as error:
    found["out of memory"] = [type(error).__name__, str(error).splitlines()[0], is_out_of_memory(error)]
print(json.dumps(found))
