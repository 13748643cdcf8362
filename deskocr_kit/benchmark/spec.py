"""What a benchmark is asked to do, and the files it leaves."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FORMAT = 1  # of bench.json; data/bench.schema.json describes it
FILE, PARTIAL = "bench.json", "bench.partial.json"


@dataclass(frozen=True)
class BenchSpec:
    """pages: files; none draws `count` pages of every length that the checkpoint can read, from the seed."""

    model: str | None = "nano"
    device: str = "auto"
    dtype: str = "auto"
    plan: str | None = None  # "auto" or a file; None: the defaults
    pages: tuple[str, ...] = ()
    count: int = 8
    seed: int = 2026
    repeats: int = 3
    warmup: int = 1
    prompt: str = "free"
    mode: str | None = None
    max_tokens: int | None = None
    success_cer: float = 0.1
    keep_text: bool = False  # of pages given as files; the text of drawn pages is always kept
    peer: bool = False  # transformers' unlimited_ocr in the same run

    def __post_init__(self):
        if self.repeats < 1 or self.warmup < 0 or self.count < 1:
            raise ValueError("bench: at least one repeat and one page of each length, no negative warm-up")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BenchSpec:
        given = json.loads(text)
        return cls(**{**given, "pages": tuple(given["pages"])})

    def command(self) -> str:
        """The line that repeats it. Files without their folders: a report tells nobody's paths."""
        words = ["deskocr", "bench", *(Path(page).name for page in self.pages)]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("pages", "peer") or value == field.default:
                continue
            name = "--" + field.name.replace("_", "-")
            path = isinstance(value, str) and os.sep in value
            words += [name] if value is True else [name, Path(value).name if path else str(value)]
        if self.peer:
            words += ["--compare", "unlimited_ocr"]
        return shlex.join(words)


def folder_for(device_label: str, model: str | None) -> str:
    """The name of a report's folder: "cpu-nano", "npu-sim-dispatch-nano"."""
    return f"{device_label}-{Path(model or 'default').name}".replace(":", "-")


def write_json(path: Path, data) -> Path:
    """Atomic: a reader finds the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path
