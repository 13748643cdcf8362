"""Imports torch where an installed torch-npu without CANN would break the import, and says so.

Since torch 2.5 `import torch` imports an installed torch-npu by itself, and fails with it; transformers fails
too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings

from ..ascend.errors import explain_exception

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"

_SET_ENV = (
    "/usr/local/Ascend/cann/set_env.sh (CANN 8.5 and newer) or /usr/local/Ascend/ascend-toolkit/set_env.sh"
)
# CANN libraries without which no torch_npu of any version can be imported (its libtorch_npu.so is linked to
# them).
_CANN_LIBRARIES = ("libascendcl.so", "libhccl.so")


class DeviceError(RuntimeError):
    """A device that cannot be used; the text says what was found and what to type."""


def torch_npu_problem() -> str | None:
    """Why an installed torch-npu cannot work here, and what to do; None where it can, or is not installed.

    Tells it without importing torch or torch_npu, by loading CANN's libraries in a subprocess (a broken
    driver may crash or hang it).
    """
    if sys.modules.get("torch_npu", ...) is None or importlib.util.find_spec("torch_npu") is None:
        return None
    if getattr(sys.modules.get("torch_npu"), "npu", None) is not None:
        return None  # imported and alive
    code = "import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]"
    try:
        probe = subprocess.run(
            [sys.executable, "-S", "-c", code, *_CANN_LIBRARIES], capture_output=True, text=True, timeout=30
        )
        found = probe.stderr.strip().rpartition("\n")[2] if probe.returncode else ""
    except subprocess.TimeoutExpired:
        found = "loading the CANN libraries did not end within 30 seconds"
    if not found:
        return None
    return (
        f"torch-npu is installed, but CANN cannot be loaded ({found}). That breaks `import torch` and "
        f"transformers. With an NPU: `source` {_SET_ENV} before Python or Jupyter starts. Without one: "
        f"`pip uninstall torch-npu`, or set {AUTOLOAD}=0."
    )


def import_torch():
    """torch, also where an installed torch-npu without CANN would break the import.

    There torch_npu is hidden from this process (PyTorch's autoload off, transformers told that it is not
    installed) with a warning that says why. Raises DeviceError where torch itself does not import.
    """
    if "torch" not in sys.modules:
        problem = torch_npu_problem()
        if problem:
            os.environ[AUTOLOAD] = "0"
            sys.modules["torch_npu"] = None  # type: ignore[assignment]  # find_spec then says: not installed
            warnings.warn(f"{problem} This process goes on without the NPU.", stacklevel=2)
    try:
        import torch
    except Exception as error:  # autoload raises RuntimeError, a broken installation ImportError or OSError
        raise DeviceError(f"`import torch` fails. {explain(error)}") from error
    return torch


def explain(error: BaseException) -> str:
    """The exception in words: what it means and what to do, where the kit's table of errors knows it."""
    return explain_exception(error)
