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
import time
from collections.abc import Iterable, Sequence

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
POLL = 0.05  # seconds between two looks at the processes
GRACE = 4.0  # seconds that a rank waits for the message of another rank before it prints its own
LEAVE = (
    3.0  # seconds that the others have to end after rank 0; less than GRACE, so they do not report its end
)


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

    Rank 0 has this process's stdin and stdout; the others only stderr. If a rank fails, the others are ended:
    its exit status is the result. A rank that a signal ended cannot say so, and is reported here.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}  # else each takes all cores
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes: list[subprocess.Popen] = []
    try:
        for rank in range(ranks):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **shared}
            pipe = None if rank == 0 else subprocess.DEVNULL
            env = {**threads, **os.environ, **own}
            processes.append(subprocess.Popen(list(command), env=env, stdin=pipe, stdout=pipe))
        return wait(processes)
    except KeyboardInterrupt:  # the terminal has sent it to all of them
        return 130
    finally:
        end(processes)


def wait(processes: Sequence[subprocess.Popen]) -> int:
    """The exit status of rank 0, or of the first rank that fails."""
    left = dict(enumerate(processes))
    while left:
        for rank, process in list(left.items()):
            if (status := process.poll()) is None:
                continue
            del left[rank]
            if status < 0:
                name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
                why = "; the system may have run out of memory" if name == "SIGKILL" else ""
                print(f"error: rank {rank} of {len(processes)} was ended by {name}{why}", file=sys.stderr)
                return 128 - status
            if status > 0 or rank == 0:
                leave(left.values() if rank == 0 else ())
                return status
        time.sleep(POLL)
    return 0


def leave(processes: Iterable[subprocess.Popen]) -> None:
    """Give processes time to end by themselves."""
    limit = time.monotonic() + LEAVE
    running = list(processes)
    while any(process.poll() is None for process in running) and time.monotonic() < limit:
        time.sleep(POLL)


def end(processes: Sequence[subprocess.Popen]) -> None:
    """End what still runs: first with SIGTERM, then with SIGKILL."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    limit = time.monotonic() + 3
    for process in running:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
