"""Choose a device by name, describe it, and find its default dtype.

    device = pick_device("auto")                 # DESKOCR_DEVICE, else npu, else cuda, else mps, else cpu
    device = pick_device("npu-sim:as-believed")  # the simulated NPU with a profile; the device is "npu:0"
    model.to(device, default_dtype(device))

This module imports torch only when it is needed: an installed torch-npu without CANN breaks `import torch`,
and this module has to report that.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
import warnings
from typing import TYPE_CHECKING

from . import notebook_errors
from .torch_import import DeviceError, explain, import_torch, torch_npu_problem

if TYPE_CHECKING:
    import torch

KINDS = ("npu", "cuda", "mps", "cpu")
SIMULATED = "npu-sim"

_configured: set[str] = set()


# ---------------------------------------------------------------------- choosing
def pick_device(name: str | None = "auto", quiet: bool = False) -> torch.device:
    """Select and initialise the device `name`.

    On an NPU this disables jit_compile and internal formats, and prints that once on stderr.

    Args:
        name: "auto" (the variable DESKOCR_DEVICE, else the first of npu, cuda, mps, cpu), "npu", "npu:1",
            "cuda:0", "mps", "cpu", "npu-sim" or "npu-sim:<profile>" (installs the simulated NPU in this
            process, which cannot be undone).
        quiet: print nothing.

    Raises:
        DeviceError: the device is unknown or cannot be used; the message has the remedy.
    """
    name, kind, rest = resolve(name)
    torch = import_torch()
    if kind == SIMULATED:
        return _pick_simulated(rest, quiet)
    if kind not in KINDS or (rest and not rest.isdigit()):
        raise DeviceError(
            f"unknown device {name!r}: use auto, {', '.join(KINDS)}, one of them with :index, or {SIMULATED}"
        )
    here = device_count(kind)
    if not here:
        raise DeviceError(f"no {kind} device: {_why_none(kind)}")
    if rest and int(rest) >= here:
        raise DeviceError(
            f"{name}: this process sees {here} device(s) of kind {kind}; the highest index is {here - 1}"
        )
    if kind == "cpu":
        return torch.device("cpu")
    device = torch.device(kind, int(rest or 0))
    if kind in ("npu", "cuda"):
        backend_of(device).set_device(device)  # first, because the next calls initialise the current card
    if kind == "npu":
        notebook_errors.install()
        _configure_npu(device, quiet)
    return device


def resolve(name: str | None) -> tuple[str, str, str]:
    """(name, its kind, what follows the colon); "auto" has the kind that is taken. Initialises no device.

    Raises DeviceError if torch or an installed torch-npu cannot be imported.
    """
    name = str(name or "auto").strip()
    if name.lower() == "auto":
        name = os.environ.get("DESKOCR_DEVICE", "").strip() or "auto"
    kind, _, rest = name.partition(":")
    kind = kind.lower()
    problem = torch_npu_problem() if kind == "npu" else None
    if problem:
        raise DeviceError(problem)
    if kind == "auto":
        import_torch()
        kind = next(each for each in KINDS if device_count(each))
    return name, kind, rest


def device_count(kind: str) -> int:
    """Number of devices of a kind ("npu", "cuda", "mps", "cpu") that this process can use."""
    torch = import_torch()
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    if kind == "npu" and not hasattr(torch, "npu") and not _import_torch_npu():
        return 0
    backend = getattr(torch, kind)
    return backend.device_count() if backend.is_available() else 0


def is_simulated(device) -> bool:
    """Whether a device is the simulated NPU, whose figures must never be shown as those of an NPU."""
    torch = import_torch()
    return torch.device(device).type == "npu" and bool(getattr(torch.npu, "simulated", False))


def default_dtype(device) -> torch.dtype:
    """fp16 on NPU and MPS; on CUDA bf16 if supported, else fp16; fp32 on the CPU."""
    torch = import_torch()
    kind = torch.device(device).type
    if kind == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32 if kind == "cpu" else torch.float16


def describe_device(device) -> dict:
    """Facts about a device for reports: its name, whether it is simulated, software versions."""
    torch = import_torch()
    device = torch.device(device)
    named = backend_of(device) if device.type in ("npu", "cuda") else None
    name = named.get_device_name(device) if named else platform.processor() or platform.machine()
    torch_npu = sys.modules.get("torch_npu")
    return {
        "device": str(device),
        "name": name,
        "simulated": is_simulated(device),
        "profile": _simulator().profile().name if is_simulated(device) else None,
        "torch": torch.__version__,
        "torch_npu": getattr(torch_npu, "__version__", None),
        "cann": getattr(torch.version, "cann", None),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def backend_of(device):
    """The torch module of a device: torch.npu, torch.cuda, torch.mps or torch.cpu."""
    torch = import_torch()
    return getattr(torch, torch.device(device).type)


def _simulator():
    from .. import simulator

    return simulator


def _pick_simulated(profile: str, quiet: bool) -> torch.device:
    simulator = _simulator()
    notebook_errors.install()
    try:
        chosen = simulator.install(*filter(None, [profile]))
    except (simulator.RealNpuPresent, simulator.ProfileError) as error:
        raise DeviceError(str(error)) from error
    if not quiet and f"sim:{chosen.name}" not in _configured:
        _configured.add(f"sim:{chosen.name}")
        print(
            f"simulated NPU, profile {chosen.name!r}: no time measured on it is an NPU time", file=sys.stderr
        )
    return import_torch().device("npu", 0)


def _import_torch_npu() -> bool:
    if importlib.util.find_spec("torch_npu") is None:
        return False
    try:
        import torch_npu  # noqa: F401
    except Exception as error:
        warnings.warn(f"torch-npu is installed but cannot be imported. {explain(error)}", stacklevel=3)
        return False
    return True


def _configure_npu(device: torch.device, quiet: bool) -> None:
    """Disable compilation of operators per shape and private weight formats.

    On a 910B both are enabled by default in builds before 26.0 and send convolutions through the legacy path.
    The settings only affect tensors created later, so they are changed at once.
    """
    npu = backend_of(device)
    if "npu" in _configured or getattr(npu, "simulated", False):
        return
    _configured.add("npu")
    npu.set_compile_mode(jit_compile=False)
    npu.config.allow_internal_format = False
    if not quiet:
        print(f"{npu.get_device_name(device)}: jit_compile off, allow_internal_format off", file=sys.stderr)


def _why_none(kind: str) -> str:
    if kind == "npu":
        if importlib.util.find_spec("torch_npu") is None:
            found = "torch-npu is not installed; `deskocr doctor` names the matching version"
        else:
            found = "torch-npu is installed but sees no card; `deskocr doctor` finds the cause"
        return f"{found}. To continue without a card: --device {SIMULATED}"
    if kind == "cuda":
        return "this torch has no CUDA, or no card is visible (CUDA_VISIBLE_DEVICES, nvidia-smi)"
    return "this torch has no Metal support, or this is not an Apple machine"


def seed_everything(value: int) -> None:
    """Seed Python, numpy (if imported) and torch on every device."""
    import random

    torch = import_torch()
    random.seed(value)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(value % 2**32)
    torch.manual_seed(value)  # seeds every backend that is loaded
