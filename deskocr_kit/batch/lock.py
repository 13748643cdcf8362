"""One run at a time may write to an output folder. The system frees the lock when the process ends."""

from __future__ import annotations

import os
import time
import uuid
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such lock; two runs are then not told apart
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
SIZE = 80  # bytes in which its content fits


class Locked(OSError):
    """Another run is writing to the output folder."""


class FolderLock:
    """Hold the lock of `out` for the length of a `with` block.

    wait: wait for the other run instead of raising Locked.
    """

    def __init__(self, out: Path, wait: bool = False, poll: float = 0.5):
        self.path, self.wait, self.poll = Path(out) / NAME, wait, poll
        self.handle = -1

    def __enter__(self) -> FolderLock:
        self.handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while not self._take():
                if not self.wait:
                    raise Locked(
                        f"{self.path.parent}: another run ({self._holder()}) is writing to this folder; wait "
                        "for its end (--wait), or choose another --out"
                    )
                time.sleep(self.poll)
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, f"process {os.getpid()} of {uuid.uuid4().hex}".encode(), 0)
        except BaseException:
            os.close(self.handle)
            raise
        return self

    def __exit__(self, *_) -> None:
        os.close(self.handle)

    def _take(self) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return True
        return True

    def _holder(self) -> str:
        text = os.pread(self.handle, SIZE, 0).decode("ascii", "replace")
        return text.partition(" of ")[0] if text.startswith("process ") else "another process"


def holder(out: Path) -> str:
    """What the process that holds a folder wrote into its lock: unique to one run. "" without a lock."""
    try:
        return (Path(out) / NAME).read_text("ascii", "replace")
    except OSError:
        return ""
