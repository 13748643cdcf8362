"""The files of a batch: images, PDFs with a choice of pages, folders, patterns, and a list on stdin.

scan.pdf            every page
scan.pdf:1-5,9      pages 1 to 5, and 9; `7-` is page 7 to the last
scans/              the images and PDFs in a folder; with recursive also in its subfolders
'scans/*.pdf'       a pattern; `**` is any depth
-                   one of the above on each line of stdin
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.untrusted import shown

from ..reading.pages import expand_inputs

LARGEST = 1_000_000  # the largest page number that a choice may name
_CHOICE = re.compile(r"(?P<file>.+):(?P<pages>\d+(-\d*)?(,\d+(-\d*)?)*)", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """Pages of a file: single numbers, and every number from `onward` (0: none)."""

    numbers: frozenset[int]
    onward: int = 0

    def __contains__(self, number: int) -> bool:
        return number in self.numbers or 0 < self.onward <= number

    def __or__(self, other: Choice) -> Choice:
        onward = min(filter(None, (self.onward, other.onward)), default=0)
        return Choice(self.numbers | other.numbers, onward)

    @property
    def last(self) -> int | None:
        """The last page to look at; None: the last of the file."""
        return None if self.onward else max(self.numbers, default=0)

    def among(self, count: int) -> int:
        """How many of the pages 1 to `count` are chosen."""
        return sum(number in self for number in range(1, count + 1))

    def skipped(self, done: Collection[int]) -> set[int]:
        """The numbers to leave out, up to the last one that is named."""
        end = max(self.numbers, default=0) if not self.onward else max(self.onward, *self.numbers, 0)
        return {number for number in range(1, end + 1) if number not in self} | set(done)


EVERY_PAGE = Choice(frozenset(), onward=1)


@dataclass(frozen=True)
class Source:
    """A file to read. file: the path as given; choice: its pages."""

    file: str
    choice: Choice = EVERY_PAGE

    @property
    def key(self) -> str:
        """The identity of the file: its absolute path."""
        return os.path.abspath(self.file)


def sources(given: Iterable[str | os.PathLike], *, recursive: bool = False, stdin=None) -> list[Source]:
    """The files that the arguments name, in order, each once; the choices of one file are joined.

    A name without a file stays in the list: reading it reports that it is missing.

    Raises ValueError for a choice of pages that cannot be, and for arguments that name no file at all.
    """
    arguments = [os.fspath(each) for each in given]
    found: dict[str, Source] = {}
    for name in _names(arguments, stdin):
        for source in _expand(name, recursive):
            before = found.get(source.key)
            if before is not None:
                source = Source(before.file, before.choice | source.choice)
            found[source.key] = source
    if not found:
        hint = "" if recursive else " (subfolders are searched with --recursive)"
        raise ValueError(f"{', '.join(map(shown, arguments)) or 'stdin'}: contains no image or PDF{hint}")
    return list(found.values())


def parse_choice(text: str, name: str = "") -> Choice:
    """ "1-5,9" -> a Choice. Raises ValueError."""
    numbers: set[int] = set()
    onward = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start, end = int(first[:8]), int(last[:8]) if last else int(first[:8])
        if start < 1 or max(start, end) > LARGEST or len(first) > 8 or len(last) > 8:
            raise ValueError(f"{name}:{shown(text, 60)}: pages are numbered from 1 to {LARGEST:,}")
        if end < start:
            raise ValueError(f"{name}:{shown(text, 60)}: the range {part} ends before it begins")
        if dash and not last:
            onward = min(onward or start, start)
        else:
            numbers |= set(range(start, end + 1))
    return Choice(frozenset(numbers), onward)


def _names(given: list[str], stdin) -> Iterator[str]:
    for name in given:
        if name == "-":
            lines = sys.stdin if stdin is None else stdin
            yield from (line for each in lines if (line := each.rstrip("\r\n")))
        else:
            yield name


def _expand(name: str, recursive: bool) -> list[Source]:
    """The sources of one argument. A file or folder of exactly this name goes before any other meaning."""
    if not _exists(name):
        if (match := _CHOICE.fullmatch(name)) and not _windows_drive(name):
            choice = parse_choice(match["pages"], shown(match["file"]))
            return [Source(each.file, choice) for each in _expand(match["file"], recursive)]
        if glob.has_magic(name):
            names = sorted(glob.glob(name, recursive=True))
            if not names:
                raise ValueError(f"{shown(name)}: no file matches this pattern")
            return [source for each in names for source in _expand(each, recursive)]
    if not os.path.isdir(name):
        return [Source(name)]
    folders = [Path(name)]
    if recursive:
        inside = (path for path in Path(name).rglob("*") if path.is_dir())
        folders += sorted(p for p in inside if not any(s.startswith(".") for s in p.relative_to(name).parts))
    return [Source(str(path)) for folder in folders for path in expand_inputs([folder])]


def _exists(name: str) -> bool:
    try:
        return os.path.lexists(name)
    except ValueError:  # a NUL character: reading it reports that
        return True


def _windows_drive(name: str) -> bool:
    return os.name == "nt" and re.fullmatch(r"[A-Za-z]:\d*", name) is not None
