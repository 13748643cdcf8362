"""The last stage: folders of pages, rows of the manifest, the summary. One thread does this."""

from __future__ import annotations

import errno
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.results import write_results

from ..reading.doubt import one_line
from ..reading.options import PageOptions
from ..reading.page_record import cut_lines, failure, page_record
from .attempts import Item, fault_in
from .cache import Cache
from .decode import FileEnd, Kept, Unreadable
from .devices import About
from .faults import CannotContinue, Fault
from .manifest import Manifest, Stored
from .progress import Progress
from .records import PAGES, SCHEMA, done_line, failed_line, write_lines
from .summary import Summary

if TYPE_CHECKING:
    from model.inference import Reading

#: Errors of the output folder as a whole: no page can be written, so the run ends and loses nothing.
HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
REFRESH = 30.0  # seconds between two replacements of pages.jsonl, at least
SHARE = 20  # of a million pages it takes longer: at most a twentieth of the time goes there


@dataclass
class Writer:
    """`take` writes whatever an earlier stage delivers. Raises CannotContinue if `out` is not writable."""

    out: Path
    manifest: Manifest
    about: About
    options: PageOptions
    settings: str  # digest
    summary: Summary
    progress: Progress
    kit: str
    cache: Cache | None = None
    refreshed: float = field(default_factory=time.monotonic)
    pause: float = REFRESH

    def take(self, event: Any) -> None:
        try:
            if isinstance(event, Kept):
                self.summary.skipped.append(event.folder)
                self.progress.page("skipped")
            elif isinstance(event, Unreadable):
                self._failed(event.key, event.file, event.page, "file", event.text, [])
            elif isinstance(event, FileEnd):
                self.manifest.settle(event.source, event.count, event.seen)
            else:
                self._outcome(*event)
            if time.monotonic() - self.refreshed > self.pause:
                self.refresh()
        except (sqlite3.Error, OSError) as error:
            raise CannotContinue(f"{self.out}: cannot be written ({error}); {_HINT}") from error

    def refresh(self) -> None:
        """Replace pages.jsonl."""
        start = time.monotonic()
        write_lines(self.out / PAGES, (line for _, line in self.manifest.records()))
        self.refreshed = time.monotonic()
        self.pause = max(REFRESH, SHARE * (self.refreshed - start))

    def _outcome(self, item: Item, outcome: Reading | Fault) -> None:
        page = item.page
        if isinstance(outcome, Fault):
            self._failed(item.key, page.file, page.number, outcome.kind, str(outcome), item.tries)
            return
        try:
            self._read(item, outcome)
        except sqlite3.Error:
            raise
        except Exception as error:  # of this page only: its folder, memory, what the model wrote
            if isinstance(error, OSError) and error.errno in HOPELESS:
                raise CannotContinue(f"{self.out}: {error}; {_HINT}") from error
            self._failed(item.key, page.file, page.number, "output", failure(page, error), item.tries)

    def _read(self, item: Item, reading: Reading) -> None:
        page, folder = item.page, self.manifest.folder(item.key, item.page.number)
        if (self.out / folder).is_symlink():
            raise OSError(f"{self.out / folder}: is a link, and results are not written elsewhere; remove it")
        fault = fault_in(reading)
        extra = {
            **page_record(page, reading, self.about.reader, self.options),
            "source": item.key,
            "sha256": item.sha256,
            "settings": self.summary.settings,
            "schema": SCHEMA,
            "kit": self.kit,
            "loop": fault == "loop",
            "cached": item.cached is not None,
            "tries": item.tries,
        }
        stored = write_results(
            self.out / folder, page.image, reading.text, extra=extra, scores=reading.scores
        )
        for line in cut_lines(page, stored["cut"]):
            self.progress.say(line)
        line = done_line(stored, folder)
        self.manifest.put(item.key, page.number, Stored("done", folder, self.settings, line))
        if self.cache is not None and item.cached is None:
            try:
                self.cache.put(item.cache_key, reading)
            except OSError as error:  # the page itself is written
                self.cache = None
                self.progress.say(f"warning: the cache cannot be written ({error}); it is not used any more")
        self._count(item, reading, folder, fault, stored["warnings"])

    def _count(self, item: Item, reading: Reading, folder: str, fault: str, warnings: list[str]) -> None:
        summary = self.summary
        summary.read.append(folder)
        if item.cached is not None:
            summary.cached.append(folder)
        else:
            summary.tokens += reading.new_tokens
        if any("guard" in each for each in item.tries):
            summary.again.append(folder)
        if reading.truncated:
            summary.truncated.append(folder)
        if fault == "loop":
            summary.loops.append(folder)
        if warnings:
            summary.warned.append(folder)
            self.progress.say(one_line(item.page.file, item.page.number, warnings))
        tokens = 0 if item.cached is not None else reading.new_tokens
        self.progress.page("read", item.page.file, item.page.number, tokens=tokens, tries=item.tries)

    def _failed(self, key: str, file: str, page: int, kind: str, text: str, tries: list[dict]) -> None:
        what = text if file in text else f"{file} page {page}: {text}"
        self.summary.failed.append({"file": file, "page": page, "error": what, "kind": kind})
        line = failed_line(file, page, self.kit, kind, what, tries)
        before = self.manifest.pages(key).get(page, Stored())  # of other settings or other content
        self.manifest.put(key, page, Stored("failed", before.folder, None, line))
        self.progress.say(f"error: {what}")
        self.progress.page("failed", file, page, kind=kind, error=what, tries=tries)


_HINT = "make room or change its permissions, and run the same command again: finished pages are kept"
