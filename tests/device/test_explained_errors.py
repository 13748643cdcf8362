"""A device error is shown once with its explanation, on the command line and in a notebook."""

from __future__ import annotations

import subprocess
import sys

from deskocr_kit.device.messages import message
from deskocr_kit.device.torch_import import DeviceError
from tests.helpers.paths import ROOT

FULL = "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.96 GiB total capacity)"
NO_CANN = "libhccl.so: cannot open shared object file: No such file or directory"


def test_command_line():
    said = message(RuntimeError(FULL))
    assert said.startswith(f"RuntimeError: {FULL}") and said.count("[oom]") == said.count("remedy:") == 1
    ours = DeviceError(f"torch-npu is installed, but CANN cannot be loaded ({NO_CANN}): source set_env.sh")
    ours.__cause__ = ImportError(NO_CANN)
    assert message(ours) == f"error: {ours}", "it explains itself: not a second time"


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


def cells(*sources: str) -> str:
    """The output of an IPython session for these cells, both streams."""
    lines = ["from IPython.core.interactiveshell import InteractiveShell"]
    lines += ["shell = InteractiveShell.instance(colors='NoColor')"]
    child = python("\n".join(lines + [f"shell.run_cell({source!r})" for source in sources]))
    assert child.returncode == 0, child.stderr
    return child.stdout + child.stderr


INSTALL = "from deskocr_kit.device import notebook_errors; print('installed', notebook_errors.install())"


def test_notebook():
    said = cells(INSTALL, f"raise RuntimeError({FULL!r})")
    assert "installed True" in said and "Traceback" in said
    assert said.count("[oom]") == said.count("remedy:") == 1
    assert said.index("Traceback") < said.index("[oom]")


def test_notebook_leaves_other_errors_alone():
    ours = f"from deskocr_kit.device.torch_import import DeviceError; raise DeviceError({NO_CANN!r})"
    said = cells(INSTALL, "1 / 0", ours, "print('goes on')")
    assert "ZeroDivisionError" in said and "DeviceError" in said and "goes on" in said
    assert "remedy:" not in said


def test_notebook_with_a_handler_of_its_own():
    own = "shell = get_ipython(); shell.set_custom_exc((Exception,), lambda *a, **k: print('mine'))"
    said = cells(own, INSTALL, f"raise RuntimeError({FULL!r})")
    assert "installed False" in said and "mine" in said and "[oom]" not in said


def test_outside_a_notebook():
    child = python(INSTALL)
    assert child.stdout == "installed False\n", child.stderr
