"""Open what others wrote: regular files only, of a bounded size, as text. Also inside gzip."""

from __future__ import annotations

import gzip
from pathlib import Path

from model.untrusted import UntrustedFile, open_regular, shown

from .kernels import TraceError

LIMIT = 256 << 20  # bytes of text; a trace of one page has a few MB
HEAD = 1 << 16


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The text of a file. Raises TraceError, in one line, if it cannot be used."""
    content = _read(path, limit + 1)
    if len(content) > limit:
        raise TraceError(f"{shown(path)}: larger than {limit >> 20} MB; record a shorter run")
    if b"\0" in content[:HEAD]:
        raise TraceError(f"{shown(path)}: a binary file, not a table or a trace")
    return content.decode("utf-8-sig", "replace")


def head(path: Path) -> str:
    """The first 64 KB of a file as text; "" if it cannot be read as text."""
    try:
        content = _read(path, HEAD)
    except TraceError:
        return ""
    return "" if b"\0" in content else content.decode("utf-8-sig", "replace")


def _read(path: Path, size: int) -> bytes:
    try:
        with open_regular(path) as file:
            return (gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file).read(size)
    except UntrustedFile as error:
        raise TraceError(str(error)) from None
    except (OSError, EOFError, ValueError) as error:  # also a damaged gzip file
        raise TraceError(
            f"{shown(path)}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
