"""Where pages are read: with a Reader in this process, or in a worker process that can be replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from model.modes import Mode, get_mode
from model.official import CHECKPOINTS

from ..reading.fingerprint import digest_of, settings_of
from ..reading.options import LoadOptions, PageOptions
from ..reading.reader import Reader
from .attempts import Item
from .faults import CannotContinue, Fault, classed, fault_of

if TYPE_CHECKING:
    from model.inference import Reading

STARTS = 10  # of a worker in a row without a page that was read, until its device is given up
PAUSES = (2.0, 8.0)  # seconds before a device that has failed is tried again
STDERR = 4000  # characters of a worker's standard error that are kept for the message
_CHILD = "import sys; sys.path[:] = {path!r}; from deskocr_kit.batch.worker import main; main({handle})"


@dataclass
class About:
    """What the main process knows about a loaded Reader: all but the model and its tokenizer."""

    reader: Reader  # its model has only `device` and `dtype`
    settings: dict  # see fingerprint.settings_of
    plan: str  # a digest of the implementations in the slots

    @property
    def mode(self) -> Mode:
        """The mode in which pages are cut."""
        return get_mode(self.settings["mode"], self.reader.model.config.checkpoint)


def load(options: LoadOptions, device: str, batch: int = 1) -> Reader:
    """A Reader for one of several devices. batch: pages that are decoded together."""
    reader = Reader.load(replace(options.only(LoadOptions), device=device))
    if batch > 1:
        reader.try_graph(batch)
    return reader


@dataclass(frozen=True)
class DeviceName:
    """Stands for a torch.device: torch knows the name "npu" only in a process that imported torch_npu."""

    name: str

    @property
    def type(self) -> str:
        return self.name.partition(":")[0]

    def __str__(self) -> str:
        return self.name


@dataclass
class ModelFacts:
    """Stands for the model where there is none. checkpoint: a name in CHECKPOINTS."""

    device: DeviceName
    dtype: Any
    checkpoint: str

    @property
    def config(self) -> Any:
        return SimpleNamespace(checkpoint=CHECKPOINTS[self.checkpoint])


def about(reader: Reader, options: PageOptions) -> About:
    device = DeviceName(str(reader.model.device))
    model = ModelFacts(device, reader.model.dtype, reader.model.config.checkpoint.name)
    slots = getattr(getattr(reader.model, "model", None), "slots", None)
    names = {
        name: f"{getattr(use, '__module__', '')}.{getattr(use, '__qualname__', repr(type(use)))}"
        for name, use in (vars(slots) if slots is not None else {}).items()
    }
    shell = replace(reader, model=model, tokenizer=None, record=None)  # type: ignore[arg-type]
    return About(shell, settings_of(reader, options), digest_of(names))


def read_with(reader: Reader, pages: Sequence, options: PageOptions, guard: dict | None) -> list[Reading]:
    """Read pages together. guard: settings of the n-gram guard that replace the reader's own."""
    if guard is not None:
        reader = replace(reader, settings={**reader.settings, **guard})
    return reader.read_batch(pages, options=options)


class LocalDevice:
    """A Reader in this process. An error that needs a new process ends the run."""

    prepares = False  # the pages go to the reader as pictures

    def __init__(self, reader: Reader, options: PageOptions):
        self.reader, self.options = reader, options
        self.settings = dict(reader.settings)
        self.name = str(reader.model.device)
        self.read_pages = self.restarts = 0

    def start(self) -> About:
        return about(self.reader, self.options)

    def read(self, items: Sequence[Item], guard: dict | None = None) -> list[Reading]:
        try:
            readings = read_with(self.reader, [item.page.image for item in items], self.options, guard)
        except Exception as error:
            fault = fault_of(error)
            if fault.kind == "device":
                raise CannotContinue(
                    f"{fault}: this process cannot use the device any more; run the same command again"
                ) from error
            raise fault from error
        self.read_pages += len(items) if guard is None else 0
        return readings

    def close(self) -> None:
        pass

    kill = close


class WorkerDevice:
    """A Reader in a process of its own, started when it is needed, and again when it has ended.

    Args:
        load: makes the Reader from the name of the device. It is pickled, so a function of a module, or a
            functools.partial of one.
        deadline: seconds for a page; the process of a slower one is killed. None: no limit.
        restart_after: pages after which the process is replaced; 0: never.
        threads: of torch in the worker; 0: torch's own choice.
    """

    prepares = True  # the pages go to the worker as views

    def __init__(
        self,
        load: Callable[[str], Reader],
        name: str,
        options: PageOptions,
        *,
        deadline: float | None = None,
        restart_after: int = 0,
        threads: int = 0,
    ):
        self.load, self.name = load, name
        self.options = replace(options.only(PageOptions), password=None)  # pages are decoded here
        self.deadline, self.restart_after, self.threads = deadline, restart_after, threads
        self.settings: dict = {}
        self.process: subprocess.Popen | None = None
        self.link: Connection | None = None
        self.errors = bytearray()
        self.read_pages = self.since_start = self.restarts = self.fruitless = 0
        self.killed = False

    def start(self) -> About:
        """Start the process and load the Reader there. Raises CannotContinue with the reason."""
        if self.killed:
            raise CannotContinue("the run has ended")
        here, there = socket.socketpair()
        with here, there:
            path = [each if each else os.getcwd() for each in sys.path]
            code = _CHILD.format(path=path, handle=there.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],  # -I: nothing is imported from the working folder
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the main process, which then ends this one
            )
            self.link = Connection(here.detach())
        if self.killed:  # meanwhile, by another thread
            self._end()
            raise CannotContinue("the run has ended")
        self.errors = bytearray()
        threading.Thread(target=self._keep_errors, args=(self.process, self.errors), daemon=True).start()
        self.since_start = 0
        try:
            self.link.send((self.load, self.name, self.options, self.threads))
            kind, answer = self.link.recv()
        except (EOFError, OSError) as error:
            raise CannotContinue(f"{self.name}: {self._ended()}") from error
        if kind != "ready":
            self._end()
            raise CannotContinue(answer)
        self.settings = dict(answer.reader.settings)
        return answer

    def read(self, items: Sequence[Item], guard: dict | None = None) -> list[Reading]:
        pages = [item.views if item.views is not None else item.page.image for item in items]
        self._give((pages, self.options, guard))
        assert self.link is not None
        try:
            if not self.link.poll(None if self.deadline is None else self.deadline * len(items)):
                self._end()
                raise Fault("deadline", f"not read after {self.deadline:g} s; --deadline allows more")
            kind, answer = self.link.recv()
        except (EOFError, OSError) as error:
            text = self._ended()
            raise Fault("worker", text) from error
        if kind == "readings":
            self.read_pages += len(items) if guard is None else 0
            self.since_start += len(items)
            self.fruitless = 0
            if 0 < self.restart_after <= self.since_start:
                self._end()
            return answer
        fault = classed(*answer)
        if fault.kind == "device":
            self._end()
        raise fault

    def close(self) -> None:
        """End the process."""
        self._end()

    def kill(self) -> None:
        """End the process for good, also from another thread that does not wait for `read`."""
        self.killed = True
        if (process := self.process) is not None:
            with contextlib.suppress(OSError):
                process.kill()

    def _give(self, task: Any) -> None:
        """Send a task to a running process; one that died before it got the task is replaced."""
        while True:
            if self.link is None:
                if self.fruitless >= STARTS:
                    raise CannotContinue(
                        f"{self.name}: the worker ended {STARTS} times in a row without reading a page"
                    )
                self.fruitless += 1
                self.restarts += 1
                self._start_again()
            assert self.link is not None
            try:
                return self.link.send(task)
            except OSError:
                self._end()

    def _start_again(self) -> None:
        """Start after a failure: a device may need a moment until it can be used again."""
        for pause in PAUSES:
            try:
                self.start()
                return
            except CannotContinue:
                if self.killed:
                    raise
                time.sleep(pause)
        self.start()

    def _ended(self) -> str:
        """Why the process ended, as far as is known; it is gone afterwards."""
        process = self.process
        status = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(timeout=5)
        self._end()
        time.sleep(0.05)  # the last lines of its standard error arrive
        tail = self.errors.decode("utf-8", "replace").strip().splitlines()
        last = f": {tail[-1].strip()[:300]}" if tail else ""
        if status is not None and status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            hint = " (perhaps the system ran out of memory)" if name == "SIGKILL" else ""
            return f"the worker process was ended by {name}{hint}{last}"
        return f"the worker process ended with status {status}{last}"

    def _end(self) -> None:
        if self.link is not None:
            self.link.close()
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
        self.link = self.process = None

    @staticmethod
    def _keep_errors(process: subprocess.Popen, kept: bytearray) -> None:
        assert process.stderr is not None
        with process.stderr as stream, contextlib.suppress(OSError, ValueError):
            while piece := os.read(stream.fileno(), 1 << 12):
                kept.extend(piece)
                del kept[:-STDERR]
