"""The first two stages: files to pages (open, render, decode), and pages to what the device needs.

One thread decodes, because the pages come from one child process (reading/page_source.py), which is fast as
long as it stays with a file. Several threads prepare: Pillow resizes outside of Python's lock.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from model.modes import Mode
from model.tiling import make_views
from model.untrusted import kind, shown

from ..reading.fingerprint import digest_of, sha256
from ..reading.pages import Page, count_pages, iter_pages
from .attempts import Item
from .cache import Cache
from .channel import Closed
from .manifest import Stored
from .records import done_line, is_complete, stored_in
from .sources import Source


@dataclass(frozen=True)
class Kept:
    """A page that an earlier run has done. folder: under the output folder."""

    key: str
    page: int
    folder: str


@dataclass(frozen=True)
class Unreadable:
    """A page that cannot be opened. text: the reason, with the name of the file."""

    key: str
    file: str
    page: int
    sha256: str
    text: str


@dataclass(frozen=True)
class FileEnd:
    """All pages of a file were delivered. count: how many it has; None: not all of them were looked at."""

    source: Source
    count: int | None
    seen: frozenset[int]  # the pages that were delivered


class Known(Protocol):
    """What is known about files and pages: manifest.Manifest, or stages.FileView for one file."""

    def content(self, key: str) -> tuple[int, int, str, int | None]: ...
    def set_content(self, key: str, size: int, changed: int, sha256: str) -> None: ...
    def pages(self, key: str) -> dict[int, Stored]: ...
    def folder(self, key: str, number: int) -> str: ...
    def put(self, key: str, number: int, row: Stored) -> None: ...


@dataclass
class Decoder:
    """Delivers the pages of files to two channels: `decoded` for the next stage, `known` for the writer."""

    out: Path
    manifest: Known
    settings: str  # digest of the settings; pages done with others are read again
    decoded: Callable[[Item], Any]
    known: Callable[[Any], Any]
    dpi: float | None = None
    password: str | None = None

    def run(self, sources: Iterable[Source]) -> None:
        for source in sources:
            self.deliver(source)

    def deliver(self, source: Source) -> None:
        """Deliver every chosen page of one file exactly once: kept, unreadable, or ready to be read."""
        if (what := special(source.file)) is not None:
            self.known(
                Unreadable(source.key, source.file, 1, "", f"{source.file}: {what}, not a regular file")
            )
            self.known(FileEnd(source, None, frozenset({1})))
            return
        digest, total = self._content(source)
        done = self._done(source, digest)
        for kept in done.values():
            self.known(kept)
        seen = set(done)
        if total is None or any(n in source.choice and n not in done for n in range(1, total + 1)):
            total = self._open(source, digest, seen)
        if total is not None:
            self._report_absent(source, digest, total, seen)
        self.known(FileEnd(source, total, frozenset(seen)))

    def _open(self, source: Source, digest: str, seen: set[int]) -> int | None:
        """Deliver the pages that are not in `seen`; returns how many the file has, if that is known then."""
        choice, highest = source.choice, max(seen, default=0)
        try:
            for page in self._pages(source, seen):
                if page.error is not None and (page.number not in choice or page.number in seen):
                    self._cannot_open(source, digest, seen, str(page.error))
                    return None
                if choice.last is not None and page.number > choice.last:
                    return None
                highest = max(highest, page.number)
                if page.number in choice and page.number not in seen:
                    seen.add(page.number)
                    self._deliver_page(source, page, digest)
                if page.number == choice.last:
                    return None
        except Closed:
            raise
        except Exception as error:  # a decoder that fails in its own way must not end the run
            self._cannot_open(source, digest, seen, f"{type(error).__name__}: {error}")
            return None
        if choice.last is None:
            return highest
        return page_count(source, self.password) if any(n not in seen for n in choice.numbers) else None

    def _deliver_page(self, source: Source, page: Page, digest: str) -> None:
        if page.error is None:
            self.decoded(Item(source.key, page, digest))
        else:
            text = _named(source.file, str(page.error))
            self.known(Unreadable(source.key, source.file, page.number, digest, text))

    def _cannot_open(self, source: Source, digest: str, seen: set[int], error: str) -> None:
        """Report a file that cannot be opened, or not any further, at its first page without an outcome."""
        number = 1
        while number in seen:
            number += 1
        seen.add(number)
        self.known(Unreadable(source.key, source.file, number, digest, _named(source.file, error)))

    def _report_absent(self, source: Source, digest: str, total: int, seen: set[int]) -> None:
        """One failure for chosen pages that the file does not have, at the first of them."""
        absent = sorted(n for n in {*source.choice.numbers, source.choice.onward} if n > total)
        if not absent:
            return
        what = f"page {absent[0]} does" if len(absent) == 1 else f"pages {absent[0]} to {absent[-1]} do"
        pages = f"{total} page{'s' if total != 1 else ''}"
        seen.add(absent[0])
        text = f"{source.file}: {what} not exist, the file has {pages}; change the numbers after the colon"
        self.known(Unreadable(source.key, source.file, absent[0], digest, text))

    def _content(self, source: Source) -> tuple[str, int | None]:
        """(digest, number of pages if known) of a file. Unchanged size and time mean unchanged content."""
        size, changed, digest, pages = self.manifest.content(source.key)
        try:
            found = os.stat(source.file)
        except (OSError, ValueError):
            return "", None
        if digest and (size, changed) == (found.st_size, found.st_mtime_ns):
            return digest, pages
        new = sha256(source.file)
        self.manifest.set_content(source.key, found.st_size, found.st_mtime_ns, new)
        return new, pages if new and new == digest else None

    def _done(self, source: Source, digest: str) -> dict[int, Kept]:
        """The pages that need no reading: their folder was written from this content with these settings."""
        done = {}
        for number, row in self.manifest.pages(source.key).items():
            if not digest or number not in source.choice:
                continue
            folder = row.folder or self.manifest.folder(source.key, number)
            stored = None if (self.out / folder).is_symlink() else stored_in(self.out / folder)
            if stored is None or (stored["source"], stored["page"]) != (source.key, number):
                continue
            if stored.get("sha256") != digest or not is_complete(self.out / folder, stored):
                continue
            if digest_of(stored["settings"]) != self.settings:
                continue
            if row.state != "done":  # the run ended between the folder and its row
                line = done_line(stored, folder)
                self.manifest.put(source.key, number, Stored("done", folder, self.settings, line))
            done[number] = Kept(source.key, number, folder)
        return done

    def _pages(self, source: Source, done) -> Iterable[Page]:
        how: dict[str, Any] = {"collect_errors": True, "skip": source.choice.skipped(done)}
        if self.dpi is not None:
            how["dpi"] = self.dpi
        if self.password is not None:
            how["password"] = self.password
        return iter_pages(source.file, **how)


def special(file: str) -> str | None:
    """What a file is that would block or never end, such as a FIFO or a device; None for any other."""
    try:
        mode = os.stat(file).st_mode
    except (OSError, ValueError):
        return None  # opening it reports why
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else kind(mode)


def page_count(source: Source, password: str | None = None) -> int:
    """The number of pages to expect in a file, as far as it is cheap to know."""
    return 1 if special(source.file) else count_pages([source.file], password)


def _named(file: str, text: str) -> str:
    """An error text that holds the name of the file; one line."""
    text = " ".join(text.split())
    return text if file in text or shown(file) in text else f"{shown(file)}: {text}"


@dataclass
class Preparer:
    """Turns decoded pages into what the device needs: looks into the cache, cuts the page into views.

    mode: of the views. None: the reader cuts the page itself.
    """

    mode: Mode | None
    cache: Cache | None = None

    def prepare(self, item: Item) -> Item | Unreadable:
        """The page, ready to be read; Unreadable if it cannot be cut into views."""
        try:
            if self.cache is not None:
                item.cache_key = self.cache.key(item.page.image)
                item.cached = self.cache.get(item.cache_key)
            if self.mode is not None and item.cached is None:
                item.views = make_views(item.page.image, self.mode)
        except (ValueError, OSError, MemoryError) as error:
            page = item.page
            text = _named(page.file, str(error) or type(error).__name__)
            return Unreadable(item.key, page.file, page.number, item.sha256, text)
        return item
