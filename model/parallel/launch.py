"""Start the processes of one model on this machine, and end all of them if one fails. No torch here.

The processes are new programs with the variables that `torchrun` sets. Nothing is forked: an NPU cannot be
used after a fork.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from typing import IO

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
POLL = 0.05  # seconds between two looks at the processes
SETTLE = 2.0  # seconds in which rank 0 may report what another rank has failed with
GRACE = (
    6.0  # seconds that a rank waits, before it reports that it lost another one, for the cause to be known
)
LEAVE = 3.0  # seconds that the others have to end after rank 0
SHOWN = 10_000  # characters of the messages of a rank that failed


def started() -> bool:
    """Whether this process is one of several that torchrun or `launch` started."""
    return all(name in os.environ for name in NEEDED)


def by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def launch(ranks: int, command: Sequence[str]) -> int:
    """Run a command as `ranks` processes and wait for them; returns an exit status.

    Rank 0 has this process's input and output. What the others write on stderr is kept, and shown for the one
    that fails first, unless rank 0 fails with it; DESKOCR_DEBUG shows it at once. If a rank fails, the others
    are ended, and its exit status is the result. A rank that a signal ended is reported here.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}  # else each takes all cores
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes: list[subprocess.Popen] = []
    logs: list[IO[bytes] | None] = []
    try:
        for rank in range(ranks):
            env = {**threads, **os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            pipe = None if rank == 0 else subprocess.DEVNULL
            kept = rank > 0 and not os.environ.get("DESKOCR_DEBUG")
            logs.append(tempfile.TemporaryFile() if kept else None)  # noqa: SIM115  # closed below
            processes.append(
                subprocess.Popen(list(command), env=env, stdin=pipe, stdout=pipe, stderr=logs[rank])
            )
        return wait(processes, logs)
    except KeyboardInterrupt:  # the terminal has sent it to all of them
        return 130
    finally:
        end(processes)
        for log in logs:
            if log is not None:
                log.close()


def wait(processes: Sequence[subprocess.Popen], logs: Sequence[IO[bytes] | None]) -> int:
    """The exit status of rank 0, or of the first rank that fails."""
    left = dict(enumerate(processes))
    while left:
        for rank, process in list(left.items()):
            if (status := process.poll()) is None:
                continue
            del left[rank]
            if rank == 0 and status >= 0:
                leave(left.values(), LEAVE)
                return status
            if status == 0:
                continue
            if 0 in left and status > 0:
                leave([left[0]], SETTLE)
                if left[0].poll():
                    return left[0].wait()  # it has the same error, and has reported it
            report(rank, len(processes), status, logs[rank])
            return status if status > 0 else 128 - status
        time.sleep(POLL)
    return 0


def report(rank: int, ranks: int, status: int, log: IO[bytes] | None) -> None:
    """Print what a rank wrote before it failed, and the signal that ended it."""
    if log is not None:
        log.seek(0)
        sys.stderr.write(log.read().decode(errors="replace")[-SHOWN:])
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        why = "; the system may have run out of memory" if name == "SIGKILL" else ""
        print(f"error: rank {rank} of {ranks} was ended by {name}{why}", file=sys.stderr)


def leave(processes: Iterable[subprocess.Popen], seconds: float) -> None:
    """Give processes time to end by themselves."""
    running, limit = list(processes), time.monotonic() + seconds
    while any(process.poll() is None for process in running) and time.monotonic() < limit:
        time.sleep(POLL)


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End what still runs: first with SIGTERM, then with SIGKILL."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    leave(running, LEAVE)
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
