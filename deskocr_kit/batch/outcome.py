"""What became of a page, and its folder of results: the part of writing that runs on any machine.

The manifest, the counts and pages.jsonl belong to the main process, see writer.py.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.results import write_results

from ..reading.options import PageOptions
from ..reading.page_record import cut_lines, failure, page_record
from .attempts import Item, fault_in
from .cache import Cache
from .devices import About
from .faults import CannotContinue, Fault
from .records import KIT, SCHEMA, done_line

if TYPE_CHECKING:
    from model.inference import Reading

    from ..reading.pages import Page

#: Errors of the output folder as a whole: no page can be written, so the run ends and loses nothing.
HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
HINT = "make room or change its permissions, and run the same command again: finished pages are kept"


@dataclass(frozen=True)
class Written:
    """A page whose folder is complete. line: of pages.jsonl. notes: lines for the user."""

    key: str
    file: str
    number: int
    folder: str
    line: str
    tokens: int  # that the model wrote now; 0 for a text from the cache
    truncated: bool
    loop: bool
    cached: bool
    warnings: list[str]
    tries: list[dict]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Failed:
    """A page without a text. kind: one of faults.KINDS. text: the reason."""

    key: str
    file: str
    number: int
    kind: str
    text: str
    tries: list[dict] = field(default_factory=list)


@dataclass
class PageWriter:
    """Writes the folder of each page under `out`."""

    out: Path
    about: About
    options: PageOptions
    cache: Cache | None = None

    def write(self, item: Item, outcome: Reading | Fault, folder: str) -> Written | Failed:
        """folder: its name under `out`. Raises CannotContinue if no page can be written there."""
        page = item.page
        if isinstance(outcome, Fault):
            return _failed(item, outcome.kind, str(outcome))
        try:
            return self._write(item, page, outcome, folder)
        except Exception as error:  # of this page only: its folder, memory, what the model wrote
            if isinstance(error, OSError) and error.errno in HOPELESS:
                raise CannotContinue(f"{self.out}: {error}; {HINT}") from error
            return _failed(item, "output", failure(page, error))

    def _write(self, item: Item, page: Page, reading: Reading, folder: str) -> Written:
        if (self.out / folder).is_symlink():
            raise OSError(f"{self.out / folder}: is a link, and results are not written elsewhere; remove it")
        loop, cached = fault_in(reading) == "loop", item.cached is not None
        extra = {
            **page_record(page, reading, self.about.reader, self.options),
            "source": item.key,
            "sha256": item.sha256,
            "settings": self.about.settings,
            "schema": SCHEMA,
            "kit": KIT,
            "loop": loop,
            "cached": cached,
            "tries": item.tries,
        }
        stored = write_results(
            self.out / folder, page.image, reading.text, extra=extra, scores=reading.scores
        )
        return Written(
            item.key,
            page.file,
            page.number,
            folder,
            done_line(stored, folder),
            0 if cached else reading.new_tokens,
            reading.truncated,
            loop,
            cached,
            stored["warnings"],
            item.tries,
            cut_lines(page, stored["cut"]) + self._keep(item, reading),
        )

    def _keep(self, item: Item, reading: Reading) -> list[str]:
        """Put a reading into the cache; a note if that fails, and the cache is not used any more."""
        if self.cache is None or item.cached is not None:
            return []
        try:
            self.cache.put(item.cache_key, reading)
        except OSError as error:  # the page itself is written
            self.cache = None
            return [f"warning: the cache cannot be written ({error}); it is not used any more"]
        return []


def _failed(item: Item, kind: str, text: str) -> Failed:
    return Failed(item.key, item.page.file, item.page.number, kind, text, item.tries)
