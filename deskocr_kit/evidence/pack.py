"""The bundle: what goes in, its manifest, and the zip."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from model.files import write_atomically
from model.untrusted import UntrustedFile, read_json_object, read_text

from .privacy import clean_json, cleaned, found_in
from .run import STATE
from .steps import PAGES

FORMAT, KIND, MANIFEST = 1, "deskocr evidence", "manifest.json"
LARGEST = 32 << 20  # bytes of one file
TABLES = ("op_statistic", "kernel_details", "step_trace_time", "api_statistic")
#: Files of a bundle, as patterns below the working folder. Nothing else is packed.
FILES = (
    *(f"doctor/*.{kind}" for kind in ("txt", "json", "info", "cfg")),
    *(f"{name}.json" for name in ("weights", "kernels", "operators", "plan", "bench", "trace", "claims")),
    "notebooks.json",
    "operators.md",
    *(f"profile/{name}.json" for name in ("deskocr_profile", "simulator_record")),
    *(f"profile/**/ASCEND_PROFILER_OUTPUT/{name}.csv" for name in TABLES),
    "logs/*.txt",
)
WITH_PAGES = (f"{PAGES}/*.ipynb",)


class PackError(RuntimeError):
    """The bundle was not written; the message says why, in one line."""


def candidates(folder: Path, include_pages: bool = False) -> Iterator[tuple[str, Path]]:
    """(name in the bundle, file) of what will be packed."""
    taken = set()
    for pattern in FILES + (WITH_PAGES if include_pages else ()):
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not path.is_symlink() and path not in taken:
                taken.add(path)
                yield _name(path.relative_to(folder)), path


def _name(path: Path) -> str:
    """The name in the bundle. The profiler's own folder is left out of it: it may contain the host's name."""
    if path.parts[0] == "profile":
        return f"profile/{path.name}"
    return path.as_posix()


def contents(folder: Path, include_pages: bool = False) -> dict[str, bytes]:
    """{name: cleaned content} without the manifest. Raises PackError for a file that cannot be cleaned."""
    found = {}
    for name, path in candidates(folder, include_pages):
        try:
            text = cleaned(name, read_text(path, LARGEST, errors="replace"))
        except (OSError, ValueError, RecursionError, UntrustedFile) as error:
            raise PackError(f"{name}: cannot be packed ({error}); delete it and run the step again") from None
        if left := found_in(text):
            raise PackError(f"{name}: private data is left ({', '.join(left)}); please report this")
        found[name] = text.encode("utf-8")
    return found


def manifest(folder: Path, files: dict[str, bytes], include_pages: bool) -> dict:
    """What the bundle is of, and the checksum of every file."""
    state = read_json_object(folder / STATE)
    facts = state["facts"]
    bench = json.loads(files["bench.json"]) if "bench.json" in files else {}
    checkpoint = bench.get("stamp", {}).get("checkpoint", {})
    return clean_json(
        {
            "kind": KIND,
            "format": FORMAT,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "device": facts["device"],
            "label": facts["label"],
            "simulated": facts["simulated"],
            "checkpoint": {
                "name": facts["checkpoint"],
                "sha256": checkpoint.get("sha256"),
                "parameters": checkpoint.get("parameters"),
            },
            "versions": facts["versions"],
            "kit": facts["kit"],
            "includes_pages": include_pages,
            "steps": state["steps"],
            "files": {
                name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                for name, content in sorted(files.items())
            },
        }
    )


def write_bundle(folder: Path, target: Path, include_pages: bool = False) -> list[str]:
    """Write the zip atomically; returns the names in it. Raises PackError, OSError.

    The entries carry a fixed date and no owner, so that equal content gives an equal file.
    """
    files = contents(folder, include_pages)
    if not files:
        raise PackError(f"{folder.name}: no step has left a file; nothing to pack")
    described = json.dumps(manifest(folder, files, include_pages), indent=1, ensure_ascii=False) + "\n"
    if left := found_in(described):
        raise PackError(f"{MANIFEST}: private data is left ({', '.join(left)}); please report this")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in {MANIFEST: described.encode("utf-8"), **files}.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            bundle.writestr(entry, content)
    write_atomically(target, stream.getvalue())
    return [MANIFEST, *files]


def listing(folder: Path, include_pages: bool = False) -> list[str]:
    """One line per file that would be packed, with its size."""
    return [f"{os.path.getsize(path):>12,}  {name}" for name, path in candidates(folder, include_pages)]
