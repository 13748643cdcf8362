"""Run a Python module in a child process with limits on time, memory and answer.

Some libraries cannot be interrupted or bounded from inside: PDFium renders a page of nested forms until
memory ends, and a tokenizer file may abort the whole process. The child is a fresh interpreter without torch;
what it answers is bytes on its standard output.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE_BYTES = 512 << 20  # address space of an interpreter with its libraries, before it works
ERROR_BYTES = 4000  # of the child's standard error, the end is kept


class LimitExceeded(RuntimeError):
    """The child took too long, too much memory, or answered too much. The message is one line."""


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
    environment = {
        **os.environ,
        "DESKOCR_CHILD_BYTES": str(memory),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "OPENBLAS_NUM_THREADS": "1",  # each thread reserves address space, which counts
        "MALLOC_ARENA_MAX": "2",
    }
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler=0", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
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
