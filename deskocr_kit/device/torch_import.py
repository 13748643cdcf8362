"""Import torch even if an installed torch-npu without CANN breaks `import torch`, and report that.

Since torch 2.5 `import torch` also imports an installed torch-npu and fails if that fails. transformers fails
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
# CANN libraries that every version of torch_npu needs (its libtorch_npu.so is linked to them).
_CANN_LIBRARIES = ("libascendcl.so", "libhccl.so")


class DeviceError(RuntimeError):
    """A device cannot be used; the message has the cause and the remedy."""


def torch_npu_problem() -> str | None:
    """Why an installed torch-npu cannot work, with the remedy; None if it can, or is not installed.

    Imports neither torch nor torch_npu. Loads CANN's libraries in a subprocess, because a broken driver may
    crash or hang.
    """
    if sys.modules.get("torch_npu", ...) is None or importlib.util.find_spec("torch_npu") is None:
        return None
    if getattr(sys.modules.get("torch_npu"), "npu", None) is not None:
        return None  # imported and alive
    code = "import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]"
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, *_CANN_LIBRARIES],
            capture_output=True,
            text=True,
            timeout=30,
        )
        found = probe.stderr.strip().rpartition("\n")[2] if probe.returncode else ""
    except subprocess.TimeoutExpired:
        found = "the CANN libraries were not loaded within 30 seconds"
    if not found:
        return None
    return (
        f"torch-npu is installed, but CANN cannot be loaded ({found}). This breaks `import torch` and "
        f"transformers. With an NPU: `source` {_SET_ENV} before Python or Jupyter starts. Without one: "
        f"`pip uninstall torch-npu`, or set {AUTOLOAD}=0."
    )


def import_torch():
    """Import torch, even if an installed torch-npu without CANN would break the import.

    In that case torch_npu is hidden from this process, with a warning: PyTorch's autoload is off, and
    transformers does not find it.

    Raises:
        DeviceError: torch itself cannot be imported.
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
    """The exception as text, with cause and remedy if it is in the error table."""
    return explain_exception(error)
