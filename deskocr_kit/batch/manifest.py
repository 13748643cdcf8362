"""What is known about every page of an output folder: a SQLite file beside the results.

A page is `pending`, `done` or `failed`. Its row is written after its folder, so a row that says `done` has a
complete folder; a complete folder without a row is found again by its result.json (`stored_in`).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..reading.fingerprint import digest_of
from .records import done_line, stored_in
from .sources import Source

NAME = "manifest.sqlite"
VERSION = 1
_TABLES = f"""
create table if not exists files (
    key text primary key,  -- absolute path
    given text not null,  -- path as given by the last run that named it
    base text not null,  -- folder of its first page
    place integer not null,  -- order in pages.jsonl
    size integer, changed integer, sha256 text,  -- of the content that was read
    pages integer  -- null: not known yet
);
create table if not exists pages (
    key text not null, number integer not null,
    state text not null,  -- pending, done or failed
    folder text, settings text,  -- of a page that is done
    record text,  -- its line in pages.jsonl
    primary key (key, number)
) without rowid;
create index if not exists states on pages (state);
create unique index if not exists places on files (place);
pragma user_version = {VERSION};
"""


@dataclass(frozen=True)
class Stored:
    """The row of a page."""

    state: str = "pending"
    folder: str | None = None
    settings: str | None = None
    record: str | None = None


class Manifest:
    """The manifest of one output folder. Threads share it; each call is one transaction.

    Raises sqlite3.Error if the file cannot be read or written (a full disk, for example).
    """

    def __init__(self, out: Path, reserved: Iterable[str] = ()):
        self.out, self.lock = Path(out), threading.RLock()
        self.reserved = {name.lower() for name in reserved}
        path = self.out / NAME
        try:
            self.db = _connect(path)
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:  # OperationalError: locked, full, not writable
                raise
            for part in sorted(self.out.glob(NAME + "*")):  # with its write-ahead log
                os.replace(part, part.with_name(part.name.replace("manifest", "damaged-manifest", 1)))
            self.db = _connect(path)
        if self.db.execute("select 1 from files limit 1").fetchone() is None:
            self._adopt()

    def close(self) -> None:
        with self.lock, contextlib.suppress(sqlite3.Error):
            self.db.close()

    def register(self, sources: Iterable[Source]) -> None:
        """Give every new file its place and the name of its folder. The order of files decides both."""
        with self.lock, self.db:
            held = dict(self.db.execute("select key, base from files"))
            names = Names({path.name for path in self.out.iterdir()} | self.reserved, held.values())
            place = self.db.execute("select coalesce(max(place), 0) from files").fetchone()[0]
            for source in sources:
                if source.key in held:
                    self.db.execute("update files set given = ? where key = ?", (source.file, source.key))
                    continue
                place += 1
                held[source.key] = base = names.new(source.file)
                row = (source.key, source.file, base, place)
                self.db.execute("insert into files (key, given, base, place) values (?, ?, ?, ?)", row)

    def content(self, key: str) -> tuple[int, int, str, int | None]:
        """(size, time of change in ns, sha256, number of pages) of a file as it was read last."""
        with self.lock:
            row = self.db.execute("select size, changed, sha256, pages from files where key = ?", (key,))
            size, changed, digest, pages = row.fetchone()
        return size or 0, changed or 0, digest or "", pages

    def set_content(self, key: str, size: int, changed: int, sha256: str) -> None:
        """Record the content of a file. Pages of other content are pending again."""
        with self.lock, self.db:
            before = self.content(key)[2]
            if before != sha256:
                self.db.execute("update pages set state = 'pending', record = null where key = ?", (key,))
                self.db.execute("update files set pages = null where key = ?", (key,))
            self.db.execute(
                "update files set size = ?, changed = ?, sha256 = ? where key = ?",
                (size, changed, sha256, key),
            )

    def expect(self, source: Source, count: int) -> int:
        """Note that a file has `count` pages, as far as is known; returns the number of chosen pages."""
        chosen = [number for number in range(1, count + 1) if number in source.choice]
        with self.lock, self.db:
            self.db.executemany(
                "insert or ignore into pages (key, number, state) values (?, ?, 'pending')",
                [(source.key, number) for number in chosen],
            )
        return len(chosen)

    def settle(self, source: Source, count: int | None, seen: Collection[int]) -> None:
        """Note that all pages of a file were delivered: `seen`, of `count` if that is known.

        Rows of pages that the file does not have are removed: it had more before it changed, or fewer pages
        than expected can be opened.
        """
        with self.lock, self.db:
            if count is not None:
                self.db.execute("update files set pages = ? where key = ?", (count, source.key))
            for number, row in self.pages(source.key).items():
                beyond = count is not None and number > count
                gone = beyond or (row.state == "pending" and number in source.choice)
                if gone and number not in seen:
                    self.db.execute("delete from pages where key = ? and number = ?", (source.key, number))

    def pages(self, key: str) -> dict[int, Stored]:
        """The rows of a file."""
        with self.lock:
            rows = self.db.execute(
                "select number, state, folder, settings, record from pages where key = ?", (key,)
            ).fetchall()
        return {number: Stored(*rest) for number, *rest in rows}

    def folder(self, key: str, number: int) -> str:
        """The name of a page's folder: the one that holds it already, else made from that of its file."""
        with self.lock:
            query = "select folder from pages where key = ? and number = ? and folder is not null"
            if found := self.db.execute(query, (key, number)).fetchone():
                return found[0]
            return page_folder(self.base(key), number)

    def base(self, key: str) -> str:
        """The name of the folder of a file's first page."""
        with self.lock:
            return self.db.execute("select base from files where key = ?", (key,)).fetchone()[0]

    def put(self, key: str, number: int, row: Stored) -> None:
        with self.lock, self.db:
            self.db.execute(
                "insert or replace into pages values (?, ?, ?, ?, ?, ?)",
                (key, number, row.state, row.folder, row.settings, row.record),
            )

    def counts(self) -> dict[str, int]:
        """{state: number of pages} of the whole folder."""
        with self.lock:
            return dict(self.db.execute("select state, count(*) from pages group by state"))

    def failed(self) -> list[tuple[str, list[int]]]:
        """(path, page numbers) of every file with failed pages."""
        return list(self._numbers("given", "failed").items())

    def pending(self) -> dict[str, list[int]]:
        """{key: page numbers} of every file with pages that have no outcome."""
        return self._numbers("key", "pending")

    def _numbers(self, name: str, state: str) -> dict[str, list[int]]:
        query = (
            f"select {name}, number from pages join files using (key) where state = ? order by place, number"
        )
        found: dict[str, list[int]] = {}
        with self.lock:
            for file, number in self.db.execute(query, (state,)):
                found.setdefault(file, []).append(number)
        return found

    def records(self, state: str | None = None) -> Iterator[tuple[str, str]]:
        """(base, line) of every page that is done or failed, by file and page. Needs the memory of a few.

        base: the name of the first page's folder, which also names the document. state: only these pages.
        """
        last: tuple[int, int] = (0, 0)
        query = (
            "select place, number, base, record from pages join files using (key) "
            "where (place, number) > (?, ?) and state in ('done', 'failed') and state = coalesce(?, state) "
            "and record is not null order by place, number limit 100"
        )
        while True:
            with self.lock:
                rows = self.db.execute(query, (*last, state)).fetchall()
            if not rows:
                return
            for place, number, base, line in rows:
                yield base, line
                last = place, number

    def _adopt(self) -> None:
        """Fill an empty manifest from the folders of a run without one, or whose manifest was damaged."""
        with self.lock, self.db:
            for place, path in enumerate(sorted(self.out.iterdir()), 1):
                if path.is_symlink() or not path.is_dir() or (stored := stored_in(path)) is None:
                    continue
                key, number = stored["source"], stored["page"]
                base = path.name if number == 1 else re.sub(rf"-p{number}$", "", path.name)
                row = (key, str(stored.get("file", key)), base, place, stored.get("sha256"))
                self.db.execute(
                    "insert or ignore into files (key, given, base, place, sha256) values (?, ?, ?, ?, ?)",
                    row,
                )
                page = Stored("done", path.name, digest_of(stored["settings"]), done_line(stored, path.name))
                self.db.execute(
                    "insert or ignore into pages values (?, ?, ?, ?, ?, ?)",
                    (key, number, page.state, page.folder, page.settings, page.record),
                )


def page_folder(base: str, number: int) -> str:
    """The name of a page's folder. base: that of the first page of its file."""
    return base if number == 1 else f"{base}-p{number}"


class Names:
    """Names of folders: unique, also on a disk that does not distinguish A from a, and for every page.

    The folders of pages 2, 3, … of a file `a` are a-p2, a-p3, …; so no file gets the name a-p2 beside an a.
    """

    def __init__(self, taken: Iterable[str], bases: Iterable[str] = ()):
        self.taken: set[str] = set()
        self.parents: set[str] = set()  # a, of every taken a-p2
        for name in (*taken, *bases):
            self._take(name)

    def new(self, file: str) -> str:
        stem = Path(file).stem
        stem = stem if stem.strip(". ") else "page"  # ".." would be outside of the folder
        stem = "".join(c if c.isprintable() else "_" for c in stem)[:100]
        name, i = stem, 1
        while not self._free(name):
            i += 1
            name = f"{stem}-{i}"
        self._take(name)
        return name

    def _free(self, name: str) -> bool:
        low = name.lower()
        parent = _parent(low)
        return low not in self.taken and low not in self.parents and parent not in self.taken

    def _take(self, name: str) -> None:
        low = name.lower()
        self.taken.add(low)
        if (parent := _parent(low)) is not None:
            self.parents.add(parent)


def _parent(name: str) -> str | None:
    match = re.fullmatch(r"(.+)-p\d+", name, re.DOTALL)
    return match[1] if match else None


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, timeout=30)
    try:
        db.execute("pragma locking_mode = exclusive")  # the folder has a lock; and no shared memory is needed
        db.execute("pragma journal_mode = wal")  # a page costs no wait for the disk
        db.execute("pragma synchronous = normal")
        db.executescript(_TABLES)
        db.execute("select count(*) from pages").fetchone()
        return db
    except BaseException:
        db.close()
        raise
