"""Open what others wrote: regular files only, of a bounded size, as text."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

from .kernels import TraceError

LIMIT = 256 << 20  # bytes of text; a trace of one page has a few MB
HEAD = 1 << 16


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The text of a file, also of a gzip file. Raises TraceError, in one line, if it cannot be used."""
    try:
        with _opened(path) as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TraceError(f"{path}: cannot be read ({reason})") from error
    if len(content) > limit:
        raise TraceError(f"{path}: larger than {limit >> 20} MB; record a shorter run")
    if b"\0" in content[:HEAD]:
        raise TraceError(f"{path}: a binary file, not a table or a trace")
    return content.decode("utf-8-sig", "replace")


def head(path: Path) -> str:
    """The first 64 KB of a file as text; "" if it cannot be read as text."""
    try:
        with _opened(path) as file:
            content = file.read(HEAD)
    except (OSError, EOFError, ValueError):
        return ""
    return "" if b"\0" in content else content.decode("utf-8-sig", "replace")


def _opened(path: Path):
    """Open without waiting for a pipe or a device that has the name of a file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError("not a regular file")
    file = os.fdopen(handle, "rb")
    return gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
