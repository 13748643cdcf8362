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
from pathlib import Path

from model.limited import START

ROOT = str(Path(__file__).resolve().parents[2])


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
        """One line that describes the failure."""
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
        """The JSON object in the last line of a Python probe; {} if there is none."""
        for line in reversed(self.stdout.splitlines()):
            if line.startswith("{"):
                try:
                    return json.loads(line)
                except ValueError:
                    continue
        return {}


def run(command: list[str], seconds: float, env: dict[str, str] | None = None) -> Probe:
    """Run a command with a time limit. Never raises, and never waits much longer than `seconds`."""
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
    spent, (printed, errors) = time.monotonic() - started, texts
    if code is None:
        return Probe("timeout", printed, errors, code=None, seconds=seconds)
    state = "ok" if code == 0 else "crash" if code < 0 else "error"
    return Probe(state, printed, errors, code=code, seconds=spent)


def _kill(child: subprocess.Popen) -> None:
    try:
        if os.name == "posix":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    except OSError:
        return  # it has ended meanwhile
    try:
        child.wait(timeout=2)
    except subprocess.TimeoutExpired:
        return  # stuck in the kernel; it ends when the driver lets go


def trial(name: str, seconds: float, *args: str, env: dict[str, str] | None = None) -> Probe:
    """Run a module of trials/ in a separate Python process, which can import this kit from any folder."""
    places = [place for place in (os.environ.get("PYTHONPATH"), ROOT) if place]
    env = {"PYTHONPATH": os.pathsep.join(places), **(env or {})}
    return run([sys.executable, "-c", START, f"{__package__}.trials.{name}", *args], seconds, env)


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


def libraries(seconds: float) -> dict[str, str]:
    """Load each library in a child process: {name: "ok" or the failure}. A crash counts for its library."""
    found: dict[str, str] = {}
    left = list(LIBRARIES)
    while left:
        probe = trial("libraries", seconds, *left)
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


def torch_import(seconds: float, autoload: bool = True) -> Probe:
    """`import torch` and a CPU matmul. autoload=False tests torch itself, without torch-npu."""
    return trial("torch_import", seconds, env=None if autoload else {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"})


def transformers_import(seconds: float) -> Probe:
    return trial("transformers_import", seconds)


def matmul(device: str, seconds: float) -> Probe:
    """A 192x256x160 fp16 matmul on the device, compared with fp32 on the CPU."""
    return trial("matmul", seconds, device)
