"""One line of pages.jsonl per page, made from the page's result.json, or from its failure."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.results import RESULT_BYTES
from model.untrusted import UntrustedFile, read_json

SCHEMA = 1  # of a line; a field may be added without a new number
PAGES = "pages.jsonl"
_KINDS = {"source": str, "page": int, "settings": dict, "files": list, "text": str}
_COPIED = (
    "tokens",
    "prompt_tokens",
    "image_tokens",
    "seconds",
    "truncated",
    "confidence",
    "no_confidence",
    "engine",
    "warnings",
    "notes",
)


def _kit() -> str:
    try:
        return version("deskocr-kit")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"


KIT = _kit()  # version of this package


def stored_in(folder: Path) -> dict | None:
    """The content of a folder's result.json; None if it was not written by a batch."""
    try:
        stored = read_json(folder / "result.json", RESULT_BYTES)
        return stored if all(isinstance(stored[name], kind) for name, kind in _KINDS.items()) else None
    except (OSError, UntrustedFile, KeyError, TypeError):
        return None


def is_complete(folder: Path, stored: dict) -> bool:
    """Whether every file of a page is in its folder."""
    return all(isinstance(name, str) and (folder / name).is_file() for name in stored["files"])


def done_line(stored: dict, folder: str) -> str:
    """The line of a page that was read. stored: its result.json."""
    tries = stored.get("tries") or [{"outcome": "done"}]
    return as_line(
        {
            **_head(stored.get("file", stored["source"]), stored["page"], stored.get("kit")),
            "state": "done",
            "text": stored["text"],
            **{name: stored[name] for name in _COPIED if name in stored},
            "loop": bool(stored.get("loop")),
            "cached": bool(stored.get("cached")),
            "attempts": len(tries),
            "tries": tries,
            "folder": folder,
        }
    )


def failed_line(file: str, page: int, kit: str, kind: str, error: str, tries: list[dict]) -> str:
    """The line of a page without a text. kind: one of faults.KINDS."""
    return as_line(
        {
            **_head(file, page, kit),
            "state": "failed",
            "error": error,
            "kind": kind,
            "tokens": 0,
            "seconds": round(sum(each.get("seconds", 0.0) for each in tries), 3),
            "attempts": len(tries),
            "tries": tries,
        }
    )


def _head(file: str, page: int, kit: str | None) -> dict:
    return {"schema": SCHEMA, "kit": kit, "file": file, "page": page}


def as_line(record: dict) -> str:
    """One line of JSON. Half of a surrogate pair, which UTF-8 cannot encode, becomes a question mark."""
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Replace a file by these lines, atomically; returns their number. The lines are not held in memory."""
    count = 0
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return count


def read_lines(path: Path) -> Iterator[dict]:
    """The records of a pages.jsonl."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
