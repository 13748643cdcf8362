"""Live probes, each in its own process with a time limit, so that a driver may hang or crash.

Two details matter. Output goes to a file, not a pipe, because a killed child can leave a grandchild that
holds the pipe. And after the kill we wait a moment only: a process stuck inside the driver cannot be killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass


@dataclass
class Probe:
    """state: "ok" (exit 0), "error" (exit not 0), "crash" (signal), "timeout", "missing" (program)."""

    state: str
    stdout: str = ""
    stderr: str = ""
    code: int | None = None
    seconds: float = 0.0

    @property
    def how(self) -> str:
        """One line on what went wrong."""
        if self.state == "timeout":
            return f"no answer within {self.seconds:.0f} s, given up"
        if self.state == "crash":
            try:
                name = signal.Signals(-(self.code or 0)).name
            except ValueError:
                name = f"signal {-(self.code or 0)}"
            return f"crashed ({name})"
        if self.state == "missing":
            return self.stderr or "program not found"
        lines = [line for line in (self.stderr or self.stdout).strip().splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.code}"

    def result(self) -> dict:
        """The JSON object that a Python probe prints as its last line; {} if there is none."""
        for line in reversed(self.stdout.splitlines()):
            if line.startswith("{"):
                try:
                    return json.loads(line)
                except ValueError:
                    continue
        return {}


def run(command: list[str], seconds: float, env: dict[str, str] | None = None) -> Probe:
    """Run a command with a time limit; never raises, never waits much longer than `seconds`."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            return Probe("missing", stderr=f"{command[0]}: {error.strerror or error}")
        try:
            code: int | None = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
            _kill(child)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read(1_000_000).decode("utf-8", errors="replace"))
    spent = time.monotonic() - started
    if code is None:
        return Probe("timeout", *texts, code=None, seconds=seconds)
    return Probe("ok" if code == 0 else "crash" if code < 0 else "error", *texts, code=code, seconds=spent)


def _kill(child: subprocess.Popen) -> None:
    try:
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except OSError:
        return  # ended by itself in between
    try:
        child.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return  # stuck in the kernel; it ends when the driver lets go


def python(code: str, seconds: float, *args: str, env: dict[str, str] | None = None) -> Probe:
    return run([sys.executable, "-c", code, *args], seconds, env)


def npu_smi(seconds: float) -> Probe:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/bin", "/usr/local/sbin"])
    program = shutil.which("npu-smi", path=places)
    if program is None:
        return Probe("missing", stderr="npu-smi is not installed or not mounted")
    return run([program, "info"], seconds)


# What torch_npu and its parts load; libascend_hal belongs to the driver, libatb to NNAL (optional).
LIBRARIES = (
    "libascend_hal.so", "libascendcl.so", "libhccl.so", "libacl_op_compiler.so", "libge_runner.so",
    "libgraph.so", "libacl_tdt_channel.so", "libopapi.so", "libatb.so",
)  # fmt: skip

_LIBRARIES_CODE = """
import ctypes, sys
for name in sys.argv[1:]:
    print("try", name, flush=True)
    try:
        ctypes.CDLL(name)
        print("ok", name, flush=True)
    except OSError as error:
        print("no", name, str(error).replace("\\n", " "), flush=True)
"""


def libraries(seconds: float) -> dict[str, str]:
    """Load each library in a child -> {name: "ok" or what happened}; a crash is charged to its library."""
    found: dict[str, str] = {}
    left = list(LIBRARIES)
    while left:
        probe = python(_LIBRARIES_CODE, seconds, *left)
        trying = None
        for line in probe.stdout.splitlines():
            word, name, *why = line.split(" ", 2)
            if word == "try":
                trying = name
            elif word in ("ok", "no"):
                found[name], trying = "ok" if word == "ok" else (why or ["not found"])[0], None
        if probe.state != "ok" and trying:
            found[trying] = probe.how
        rest = [name for name in left if name not in found]
        if len(rest) == len(left):  # the child did not even start
            return {**found, **dict.fromkeys(rest, probe.how)}
        left = rest
    return found


_TORCH_CODE = """
import importlib.util, json, sys
out = {"torch_npu_installed": importlib.util.find_spec("torch_npu") is not None}
import torch
out["torch"] = torch.__version__
a = torch.arange(4096, dtype=torch.float32).reshape(64, 64).remainder(7) - 3
out["cpu_error"] = float(((a @ a).double() - a.double() @ a.double()).abs().max())
out["cuda"] = bool(torch.cuda.is_available())
out["mps"] = bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
npu = getattr(torch, "npu", None)
out["npu"] = bool(npu and npu.is_available())
out["cann"] = getattr(torch.version, "cann", None)
print(json.dumps(out), flush=True)
"""

_TRANSFORMERS_CODE = """
import json
from transformers.utils import is_torch_npu_available
import transformers
from transformers import PreTrainedModel
print(json.dumps({"transformers": transformers.__version__}), flush=True)
"""

_MATMUL_CODE = """
import json, sys, time
import torch
kind = sys.argv[1]
out = {"device": kind}
if kind == "npu":
    import torch_npu
    option = getattr(torch_npu._C, "_npu_getOption", None)  # torch.npu.config can only be written
    found = option("ALLOW_INTERNAL_FORMAT") if option else None
    out["internal_format_default"] = found.decode() if isinstance(found, bytes) else found
    is_false = getattr(torch.npu, "is_jit_compile_false", None)
    out["jit_compile_default"] = (not is_false()) if is_false else None
    torch.npu.set_compile_mode(jit_compile=False)
    torch.npu.config.allow_internal_format = False
torch.manual_seed(0)
a, b = torch.randn(192, 256).half(), torch.randn(256, 160).half()
want = a.float() @ b.float()
started = time.time()
got = (a.to(kind) @ b.to(kind)).float().cpu()
out["seconds"] = time.time() - started
out["relative_error"] = float((got - want).abs().max() / want.abs().max())
module = getattr(torch, kind, None)
for name in ("get_device_name", "device_count"):
    try:
        out[name] = getattr(module, name)()
    except Exception as error:
        out[name] = None
print(json.dumps(out), flush=True)
"""


def torch_import(seconds: float, autoload: bool = True) -> Probe:
    """`import torch` and a CPU matmul. `autoload=False` proves whether torch itself is sound."""
    return python(_TORCH_CODE, seconds, env=None if autoload else {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})


def transformers_import(seconds: float) -> Probe:
    return python(_TRANSFORMERS_CODE, seconds)


def matmul(device: str, seconds: float) -> Probe:
    """A 192x256x160 fp16 matmul on the device against fp32 on the CPU."""
    return python(_MATMUL_CODE, seconds, device)
