"""The last stage: rows of the manifest, pages.jsonl, the summary. One thread does this."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from typing import Any

from ..reading.doubt import one_line
from .decode import FileEnd, Kept, Unreadable
from .faults import CannotContinue
from .manifest import Manifest, Stored
from .outcome import HINT, Failed, PageWriter, Written
from .progress import Progress
from .records import KIT, PAGES, failed_line, write_lines
from .summary import Summary

REFRESH = 30.0  # seconds between two replacements of pages.jsonl, at least
SHARE = 20  # of a million pages it takes longer: at most a twentieth of the time goes there


@dataclass
class Writer:
    """`take` writes whatever an earlier stage delivers. Raises CannotContinue if `out` is not writable.

    settings: their digest.
    """

    pages: PageWriter
    manifest: Manifest
    settings: str
    summary: Summary
    progress: Progress
    refreshed: float = field(default_factory=time.monotonic)
    pause: float = REFRESH

    def take(self, event: Any) -> None:
        """event: Kept, Unreadable, FileEnd, Written, Failed, or an item with its Reading or Fault."""
        try:
            if isinstance(event, tuple):
                item, outcome = event
                event = self.pages.write(item, outcome, self.manifest.folder(item.key, item.page.number))
            if isinstance(event, Written):
                self._written(event)
            elif isinstance(event, Failed):
                self._failed(event)
            elif isinstance(event, Kept):
                self.summary.skipped.append(event.folder)
                self.progress.page("skipped")
            elif isinstance(event, Unreadable):
                self._failed(Failed(event.key, event.file, event.page, "file", event.text))
            elif isinstance(event, FileEnd):
                self.manifest.settle(event.source, event.count, event.seen)
            else:
                raise TypeError(f"expected an outcome of a page, got {type(event).__name__}")
            if time.monotonic() - self.refreshed > self.pause:
                self.refresh()
        except (sqlite3.Error, OSError) as error:
            raise CannotContinue(f"{self.pages.out}: cannot be written ({error}); {HINT}") from error

    def refresh(self) -> None:
        """Replace pages.jsonl."""
        start = time.monotonic()
        write_lines(self.pages.out / PAGES, (line for _, line in self.manifest.records()))
        self.refreshed = time.monotonic()
        self.pause = max(REFRESH, SHARE * (self.refreshed - start))

    def _written(self, page: Written) -> None:
        self.manifest.put(page.key, page.number, Stored("done", page.folder, self.settings, page.line))
        for line in page.notes:
            self.progress.say(line)
        summary = self.summary
        summary.read.append(page.folder)
        if page.cached:
            summary.cached.append(page.folder)
        summary.tokens += page.tokens
        if any("guard" in each for each in page.tries):
            summary.again.append(page.folder)
        if page.truncated:
            summary.truncated.append(page.folder)
        if page.loop:
            summary.loops.append(page.folder)
        if page.warnings:
            summary.warned.append(page.folder)
            self.progress.say(one_line(page.file, page.number, page.warnings))
        self.progress.page("read", page.file, page.number, tokens=page.tokens, tries=page.tries)

    def _failed(self, page: Failed) -> None:
        file, number, kind = page.file, page.number, page.kind
        what = page.text if file in page.text else f"{file} page {number}: {page.text}"
        self.summary.failed.append({"file": file, "page": number, "error": what, "kind": kind})
        line = failed_line(file, number, KIT, kind, what, page.tries)
        before = self.manifest.pages(page.key).get(number, Stored())  # of other settings or other content
        self.manifest.put(page.key, number, Stored("failed", before.folder, None, line))
        self.progress.say(f"error: {what}")
        self.progress.page("failed", file, number, kind=kind, error=what, tries=page.tries)
