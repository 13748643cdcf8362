"""The level `compiled`: a record that `python -m tests.on_cuda` writes on a CUDA card. None is stored yet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .digest import kernel_digest


def compiled_record(rows: Iterable[dict], device: dict) -> dict[str, Any]:
    """The record for the rows of the kernel checks and the facts about their card.

    {"device", "torch", "kernels": digest, "slots": {slot: {"kernels", "errors": {dtype: worst}, "failed"}}}
    """
    slots: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "slot" not in row:
            continue
        entry = slots.setdefault(row["slot"], {"kernels": [], "errors": {}, "failed": []})
        entry["kernels"] = sorted({*entry["kernels"], *row["kernels"]})
        entry["errors"][row["dtype"]] = max(entry["errors"].get(row["dtype"], 0.0), row["error"])
        entry["failed"] += [row["why"]] if row["why"] else []
    about = {"device": device["name"], "torch": device["torch"], "kernels": kernel_digest()}
    return {**about, "slots": slots}


def compiled_words(path: Path) -> dict[str, str]:
    """{kernel: what is known of it on a card}, empty without a record or if it is of other kernels."""
    if not path.is_file():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["kernels"] != kernel_digest():
        return {}
    words: dict[str, str] = {}
    for entry in record["slots"].values():
        worst = max(entry["errors"].values(), default=0.0)
        said = entry["failed"][0] if entry["failed"] else f"{record['device']}, error {worst:.0e}"
        for kernel in entry["kernels"]:
            if kernel not in words or entry["failed"]:
                words[kernel] = said
    return words
