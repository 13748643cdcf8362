"""Run a Python module in a child process with limits on time, memory and answer.

Some libraries cannot be interrupted or bounded from inside: PDFium renders a page of nested forms until
memory ends, and a tokenizer file may abort the whole process. The child is a fresh interpreter without torch.
`run_limited` runs a module once; what it answers is bytes on its standard output. `Child` keeps a module
running, for many requests with a time limit each: the start of an interpreter takes some tenths of a second.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
BASE_BYTES = 512 << 20  # address space of an interpreter with its libraries, before it works
_SIZE = 8  # bytes of the length before an answer
ERROR_BYTES = 4000  # of the child's standard error, the end is kept


class ChildEnded(RuntimeError):
    """The child ended before it had answered: a crash, or its memory limit. The message is one line."""


class LimitExceeded(RuntimeError):
    """The child took too long, too much memory, or answered too much. The message is one line."""


_PYTHON = (sys.executable, "-X", "faulthandler=0", "-m")


def _environment(memory: int) -> dict[str, str]:
    return {
        **os.environ,
        "DESKOCR_CHILD_BYTES": str(memory),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "OPENBLAS_NUM_THREADS": "1",  # each thread reserves address space, which counts
        "MALLOC_ARENA_MAX": "2",
    }


@dataclass(frozen=True)
class Answer:
    """What a child process left: its exit status (negative for a signal), standard output and error."""

    status: int
    output: bytes
    errors: str


def limit_memory(size: int) -> None:
    """Limit the address space of this process to `size` bytes beyond its libraries; the child calls it first.

    Windows and macOS have no such limit that works; there only the time is limited.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size + BASE_BYTES, size + BASE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):  # macOS refuses, or a harder limit is in force already
        return


def run_limited(
    module: str,
    arguments: Sequence[str],
    *,
    seconds: float,
    memory: int,
    send: bytes = b"",
    answer_bytes: int = 1 << 30,
) -> Answer:
    """Run `python -m module arguments` with `send` on its standard input, and return what it answers.

    The child gets the memory limit in the environment variable DESKOCR_CHILD_BYTES and applies it with
    `limit_memory(child_bytes())` before it opens anything.

    Raises:
        LimitExceeded: more than `seconds`, or more than `answer_bytes` on its standard output. It is killed.
    """
    child = subprocess.Popen(
        [*_PYTHON, module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(memory),
    )
    late = threading.Event()

    def stop() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, stop)
    output, errors = bytearray(), bytearray()

    def take_errors() -> None:
        assert child.stderr is not None
        while piece := os.read(child.stderr.fileno(), 1 << 16):
            errors.extend(piece)
            del errors[:-ERROR_BYTES]

    def give() -> None:
        assert child.stdin is not None
        with contextlib.suppress(OSError):  # a broken pipe: it ended without reading everything
            child.stdin.write(send)
            child.stdin.close()

    workers = [threading.Thread(target=each, daemon=True) for each in (take_errors, give)]
    timer.start()
    try:
        for worker in workers:
            worker.start()
        assert child.stdout is not None
        while piece := os.read(child.stdout.fileno(), 1 << 20):
            output += piece
            if len(output) > answer_bytes:
                raise LimitExceeded(f"the answer has more than {answer_bytes:,} bytes")
        status = child.wait()
    finally:
        timer.cancel()
        if child.poll() is None:
            child.kill()
            child.wait()
        for worker in workers:
            worker.join(timeout=5)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
    if late.is_set():
        raise LimitExceeded(f"not finished after {seconds:g} s")
    return Answer(status, bytes(output), errors.decode("utf-8", "replace"))


def child_bytes() -> int:
    """The memory limit that `run_limited` gave to this process, in bytes."""
    return int(os.environ["DESKOCR_CHILD_BYTES"])


class Child:
    """A module that runs in a child process and answers requests, until it breaks a limit or is closed.

    A request is one line of JSON on the child's standard input. The answer is a JSON object, sent with
    `send_answer`, and as many bytes as the receiver expects from it. The child's standard error is dropped:
    decoders complain there about files that they read all the same.
    """

    def __init__(self, module: str, memory: int):
        self.process = subprocess.Popen(
            [*_PYTHON, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(memory),
        )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def ask(self, request: dict, seconds: float, take: Callable[[dict, Callable[[int], bytes]], T]) -> T:
        """`take(answer, read)`, where `read(n)` returns the next n bytes behind the answer.

        Raises:
            LimitExceeded: the answer and its bytes took more than `seconds`. The child is killed.
            ChildEnded: the child is gone.
        """
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            self._write(json.dumps(request).encode() + b"\n")
            size = int.from_bytes(self._read(_SIZE), "big")
            return take(json.loads(self._read(size)), self._read)
        except BaseException as error:
            self.close()  # what is left of the answer would be taken for the next one
            if late.is_set():
                raise LimitExceeded(f"not finished after {seconds:g} s") from None
            if isinstance(error, (EOFError, BrokenPipeError)):
                raise ChildEnded(f"the process ended with status {self.process.returncode}") from None
            raise
        finally:
            timer.cancel()

    def _write(self, content: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(content)
        self.process.stdin.flush()

    def _read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        content = self.process.stdout.read(size)
        if len(content) < size:
            raise EOFError
        return content

    def close(self) -> None:
        """End the child. It may be called twice."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def requests(seconds: float) -> Iterator[tuple[dict, BinaryIO]]:
    """In the child: each request, and where to send the answer, until the parent closes its end.

    Standard output is kept for answers: what a library prints there goes nowhere. A child whose parent is
    gone ends after `seconds` of work on one request.
    """
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the parent
    alarm = getattr(signal, "alarm", lambda after: None)  # Windows has none
    for line in sys.stdin.buffer:
        alarm(math.ceil(seconds))
        yield json.loads(line), answers
        alarm(0)


def send_answer(answers: BinaryIO, answer: dict, content: Iterable[bytes] = ()) -> None:
    """In the child: send an answer and the bytes behind it."""
    text = json.dumps(answer).encode()
    answers.write(len(text).to_bytes(_SIZE, "big") + text)
    for piece in content:
        answers.write(piece)
    answers.flush()
