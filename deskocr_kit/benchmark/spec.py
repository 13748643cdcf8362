"""The options of a benchmark, and the names of its files."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

from ..reading.engines.options import EngineOptions
from ..reading.options import LoadOptions, Options, PageOptions, default_for, option

FORMAT = 1  # of bench.json; bench.schema.json describes it
FILE, PARTIAL = "bench.json", "bench.partial.json"


@dataclass(frozen=True)
class Repetitions(Options):
    """The pages, and how often each is read.

    pages: files. Without files, `count` pages of every length that the checkpoint can read are drawn from the
    seed.
    """

    pages: tuple[str, ...] = ()
    count: int = option(8, "Number of pages to draw of each length.", minimum=1)
    seed: int = option(2026, "Seed of the drawn pages.")
    repeats: int = option(3, "Timed readings of each page.", minimum=1)
    warmup: int = option(1, "Readings before the timed ones, not counted.", minimum=0)


@dataclass(frozen=True)
class BenchSpec(EngineOptions, PageOptions, Repetitions, LoadOptions):
    """The options of reading and of measuring. Raises ValueError for a value that is not allowed.

    The order of the bases is the order of the fields, last base first; `command` follows it.
    """

    model: str | None = default_for(LoadOptions, "model", "nano")
    success_cer: float = option(0.1, "A page is a success only if its CER is at most this.")
    # The text of drawn pages is always kept.
    keep_text: bool = option(False, "Store the text of given pages.")
    peer: bool = False  # transformers' unlimited_ocr in the same run

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ("kit", "openai"):
            raise ValueError(f"--engine {self.engine} cannot be measured; choose kit or openai")
        if self.engine != "kit" and self.peer:
            raise ValueError("the race with transformers needs --engine kit")

    @classmethod
    def from_json(cls, text: str) -> BenchSpec:
        given = json.loads(text)
        return cls(**{**given, "pages": tuple(given["pages"])})

    def command(self) -> str:
        """The command that repeats the benchmark; without folders, so that a report has no private paths."""
        words = ["deskocr", "bench", *(Path(page).name for page in self.pages)]
        for field in fields(self):
            value = getattr(self, field.name)
            hidden = field.name in ("pages", "peer") or field.metadata.get("secret")
            if hidden or value == field.default:
                continue
            name = "--" + field.name.replace("_", "-")
            words += [name] if value is True else [name, public(field.name, value)]
        if self.peer:
            words += ["--compare", "unlimited_ocr"]
        return shlex.join(words)


def public(name: str, value: object) -> str:
    """A value without what is private: folders, and the host of a URL."""
    if name == "base_url":
        parts = urlsplit(str(value))
        return f"{parts.scheme}://HOST{parts.path}"
    return Path(value).name if isinstance(value, str) and os.sep in value else str(value)


def folder_for(device_label: str, model: str | None) -> str:
    """The name of a report's folder: "cpu-nano", "npu-sim-dispatch-nano"."""
    return f"{device_label}-{Path(model or 'default').name}".replace(":", "-")
