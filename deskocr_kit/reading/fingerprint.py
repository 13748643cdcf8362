"""What the text of a page depends on: the settings, the weights, the plan and the bytes of the file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from model.prompts import resolve_prompt
from model.untrusted import open_regular

from .doubt import FILE as CONFIDENCE_FILE
from .options import PageOptions

PIECE = 1 << 20  # bytes read at a time
SAMPLE = 1 << 16  # bytes read at each of SAMPLES places of a weight file
SAMPLES = 16
MEASURED = ("evaluation.json", CONFIDENCE_FILE)  # measurements of the weights; they do not change the text


def settings_of(reader, options: PageOptions) -> dict:
    """All settings that affect the text of a page, as plain data. The batch size does not.

    Options that are not listed here come from their fingerprint, so a new option cannot be forgotten.
    """
    own = dict(reader.settings)
    return {
        **reader.options.fingerprint(),
        **options.only(PageOptions).fingerprint(),
        **own,
        "mode": options.mode or own["mode"],
        "max_new_tokens": options.max_tokens or own["max_new_tokens"],
        "prompt": resolve_prompt(options.prompt, options.target, reader.model.config.checkpoint),
        **reader.identity(),
    }


def weights_digest(folder: Path) -> str:
    """A digest of a checkpoint that does not need to read gigabytes.

    It covers all small files completely, and of each weight file its size and SAMPLES pieces spread over it.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == ".safetensors":
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with open_regular(path) as file:
                for i in range(SAMPLES):
                    file.seek(max(0, size - SAMPLE) * i // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE))
        elif path.suffix == ".json" and path.name not in MEASURED:
            digest.update(path.name.encode())
            with open_regular(path) as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
    return digest.hexdigest()[:16]


def sha256(file: str | Path) -> str:
    """The digest of the content; "" for a file that cannot be opened (reading its pages reports why)."""
    digest = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


def digest_of(data: Any) -> str:
    """A short digest of plain data, which does not depend on the order of keys."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
