"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: a reader, or a run that is cut off, never sees half a file.

    The folder is made if it is missing. Raises OSError if the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)  # mkstemp makes it private; a result is an ordinary file
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def refuse_link(folder: Path) -> None:
    """Raise OSError if a folder for results is a link: files elsewhere would be written and removed."""
    if folder.is_symlink():
        raise OSError(f"{folder}: it is a link, and results are not written through links; remove it")


def write_json(path: Path, data: Any) -> Path:
    """Write indented JSON atomically, see `write_atomically`; returns the path.

    Half of a surrogate pair, which a model can write, becomes a question mark: UTF-8 has no bytes for it.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode("utf-8", "replace"))
    return path
