"""Notebook kernels forked from a process that has the large libraries imported, so that nbval need not wait.

A kernel remains a process of its own, with its own variables, folder and names: a missing import is still an
error there. One server per pytest process, started with the first kernel.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time

IMPORTED = ("tests.helpers.forked_kernels", "ipykernel.kernelapp", "ipykernel.ipkernel", "transformers",
            "matplotlib.figure", "pandas", "deskocr_kit.course", "deskocr_kit.reading.reader")  # fmt: skip
# macOS ends a forked process that uses system libraries; Windows has no fork.
POSSIBLE = sys.platform == "linux"
KERNEL = ["-m", "ipykernel_launcher"]


def install() -> None:
    """Let jupyter_client start each Python kernel of this process in that way, where it is possible."""
    from jupyter_client.provisioning import local_provisioner

    if not POSSIBLE:
        return
    start = local_provisioner.launch_kernel

    def launch_kernel(command: list[str], **how):
        if command[1 : 1 + len(KERNEL)] != KERNEL:
            return start(command, **how)
        return Kernel(command[1 + len(KERNEL) :], how["env"], how.get("cwd"))

    local_provisioner.launch_kernel = launch_kernel


class Kernel:
    """What jupyter_client uses of a `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: str | None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        self.process = context.Process(target=_become, args=(arguments, environment, folder or os.getcwd()))
        self.process.start()
        self.pid = self.process.pid
        while self.poll() is None and os.getpgid(self.pid) != self.pid:  # until it has its own
            time.sleep(0.001)

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


# ---------------------------------------------------------------------- in the forked process
def _become(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Be the kernel that `python -m ipykernel_launcher ARGUMENTS…` is."""
    from ipykernel.kernelapp import IPKernelApp

    gc.freeze()  # no collection visits what the server imported
    os.setsid()  # jupyter_client interrupts the group
    for number in range(3):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    IPKernelApp.launch_instance(arguments, parent_handle=os.getppid())
