"""Readings by the pixels of the page, model, plan and settings: shared by runs and output folders.

A cache is a folder, given with --cache. It holds the texts of the pages that were read, so it is as private
as they are. A damaged or foreign entry is a miss.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.files import write_json
from model.inference import Reading
from model.untrusted import UntrustedFile, read_json_object

from ..reading.fingerprint import digest_of

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1
LARGEST = 64 << 20  # bytes of an entry
_KINDS: dict[str, Any] = {
    "text": str, "raw": str, "ids": list, "prompt_tokens": int, "image_tokens": int, "grid": list,
    "truncated": bool, "seconds": (int, float), "logprobs": list, "spans": list,
}  # fmt: skip


class Cache:
    """settings, plan: see devices.About; readings made with others are not found."""

    def __init__(self, folder: Path, settings: dict, plan: str, kit: str):
        self.folder = Path(folder)
        self.how = digest_of({"format": FORMAT, "settings": settings, "plan": plan, "kit": kit})

    def key(self, image: Image.Image) -> str:
        """The name of the entry for an RGB page."""
        digest = hashlib.sha256(f"{self.how} {image.width}x{image.height} {image.mode}".encode())
        digest.update(image.tobytes())
        return digest.hexdigest()

    def get(self, key: str) -> Reading | None:
        try:
            entry = read_json_object(self._path(key), LARGEST)
            if entry["key"] != key or not all(isinstance(entry[n], kind) for n, kind in _KINDS.items()):
                return None
            fields = {name: entry[name] for name in _KINDS}
            counted = entry.get("counted")
            return Reading(
                **fields | {"grid": tuple(entry["grid"]), "spans": [tuple(s) for s in entry["spans"]]},
                counted=counted if isinstance(counted, int) else None,
            )
        except (OSError, UntrustedFile, KeyError, TypeError):
            return None

    def put(self, key: str, reading: Reading) -> None:
        """Raises OSError if the entry cannot be written."""
        fields = {name: getattr(reading, name) for name in _KINDS}
        spans = [list(span) for span in reading.spans]
        rest: dict[str, Any] = {
            "key": key,
            "grid": list(reading.grid),
            "spans": spans,
            "logprobs": list(reading.logprobs),
        }
        rest |= {} if reading.counted is None else {"counted": reading.counted}
        write_json(self._path(key), fields | rest)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
