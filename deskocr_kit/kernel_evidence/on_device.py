"""The levels `compiled` and `run`: what kernels did on a CUDA card and on an NPU. No record is stored yet.

`python -m tests.on_cuda` writes a record, and `deskocr evidence add` makes one from a bundle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..display.printable import printable
from ..operators.digests import kernel_digest
from ..operators.substitutes.registry import SLOTS

#: {kind of device: the level that its record proves}; the record is data/LEVEL.json.
LEVELS = {"cuda": "compiled", "npu": "run"}

LONGEST = 120  # characters of a reason


def device_record(rows: Iterable[dict], device: dict) -> dict[str, Any]:
    """The record for rows of `deskocr prove` or of `tests/on_cuda`, and the facts about their device.

    rows: those with "kernels", the names that the call started, count; "slot", "dtype", "error" or None, and
    "why" it failed or "".

    {"device", "torch", "kernels": digest, "slots": {slot: {"kernels", "errors": {dtype: worst}, "failed"}}}
    """
    slots: dict[str, dict[str, Any]] = {}
    for row in rows:
        if not row.get("kernels"):
            continue
        entry = slots.setdefault(row["slot"], {"kernels": [], "errors": {}, "failed": []})
        entry["kernels"] = sorted({*entry["kernels"], *row["kernels"]})
        if row["error"] is not None:
            entry["errors"][row["dtype"]] = max(entry["errors"].get(row["dtype"], 0.0), row["error"])
        entry["failed"] += [row["why"]] if row["why"] else []
    about = {"device": device["name"], "torch": device["torch"], "kernels": kernel_digest()}
    return {**about, "slots": slots}


def proved_record(proved: dict) -> dict[str, Any] | None:
    """The record for the content of an operators.json; None if it started no compiled kernel of this version.

    The file may be a stranger's: rows of another form are left out, and texts are made printable.
    """
    if proved.get("kernels") != kernel_digest():
        return None
    rows = [
        {**row, "why": printable(row["why"])[:LONGEST] if row["verdict"] != "pass" else ""}
        for row in proved["rows"]
        if _sound(row)
    ]
    found = device_record(rows, proved["device"])
    return found if found["slots"] else None


def _sound(row: Any) -> bool:
    words = ("slot", "dtype", "verdict", "why")
    if not isinstance(row, dict) or not all(isinstance(row.get(word), str) for word in words):
        return False
    error, names = row.get("error"), row.get("kernels")
    return (
        row["slot"] in SLOTS
        and isinstance(names, list)
        and all(isinstance(name, str) and name.isidentifier() for name in names)
        and (error is None or (isinstance(error, float) and math.isfinite(error)))
    )


def stored_record(path: Path) -> dict[str, Any] | None:
    """A record that is there and of the kernels of this version."""
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if record["kernels"] == kernel_digest() else None


def device_words(path: Path) -> dict[str, str]:
    """{kernel: what is known of it on a device}, empty without a record or if it is of other kernels."""
    if (record := stored_record(path)) is None:
        return {}
    words: dict[str, str] = {}
    for entry in record["slots"].values():
        worst = max(entry["errors"].values(), default=0.0)
        said = entry["failed"][0] if entry["failed"] else f"{record['device']}, error {worst:.0e}"
        for kernel in entry["kernels"]:
            if kernel not in words or entry["failed"]:
                words[kernel] = said
    return words
