"""Open and parse files that strangers made: regular files only, with limits on size, numbers and nesting.

A weight folder, a page, a log or a result of an earlier run may hold a FIFO (which blocks for ever), a device
(which never ends), a file of many gigabytes, or JSON that is nested a hundred thousand times. Every function
here answers such input with one exception class, `UntrustedFile`, and a message of one line.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

MEBIBYTE = 1 << 20
TEXT_BYTES = 16 * MEBIBYTE  # the largest official text file, tokenizer.json, has 9.6 MB
JSON_DEPTH = 64  # the official files have 9 levels at most
JSON_DIGITS = 40  # a number of a hundred thousand digits takes Python seconds, above 4,300 it raises
# A string that does not end extends to the end of the text, so that no quote is looked at twice.
_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
NAME_CHARACTERS = 200  # of a path or a key in a message


class UntrustedFile(ValueError):
    """A file that is refused before its content is used: not regular, too large, or not what it should be."""


def open_regular(path: str | os.PathLike, limit: int | None = None) -> BufferedReader:
    """Open a regular file for reading, in binary.

    A link to a regular file is followed. A FIFO, a device, a socket and a folder are refused without a read.

    Raises:
        UntrustedFile: not a regular file, or of more than `limit` bytes.
        OSError: the file does not exist, or its permissions forbid reading.
    """
    name = shown(path)
    # Without O_NONBLOCK, the opening of a FIFO waits for a writer.
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    try:
        handle = os.open(path, flags)
    except ValueError as error:  # a NUL character in the path
        raise UntrustedFile(f"{name}: not the name of a file ({error})") from None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
            raise UntrustedFile(f"{name}: not a regular file") from None
        raise
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise UntrustedFile(f"{name}: {kind(found.st_mode)}, not a regular file")
        if limit is not None and found.st_size > limit:
            raise UntrustedFile(f"{name}: {found.st_size:,} bytes, more than the {limit:,} that are read")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def kind(mode: int) -> str:
    """What a file is, from its `st_mode`: "a folder", "a FIFO", "a device", "a socket" or "a file"."""
    kinds = {
        stat.S_ISDIR: "a folder",
        stat.S_ISFIFO: "a FIFO",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISSOCK: "a socket",
    }
    return next((what for test, what in kinds.items() if test(mode)), "a file")


def read_bytes(path: str | os.PathLike, limit: int = TEXT_BYTES) -> bytes:
    """The content of a regular file. Raises UntrustedFile and OSError, see `open_regular`.

    A file that grows while it is read, or a pseudo file that states the size 0, is held to the limit too.
    """
    with open_regular(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UntrustedFile(f"{shown(path)}: more than the {limit:,} bytes that are read")
    return content


def read_text(path: str | os.PathLike, limit: int = TEXT_BYTES, errors: str = "strict") -> str:
    """The text of a regular file in UTF-8, a byte order mark removed.

    Raises UntrustedFile and OSError, see `open_regular`; UntrustedFile too if the bytes are not UTF-8 and
    `errors` is "strict".
    """
    try:
        return read_bytes(path, limit).decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise UntrustedFile(f"{shown(path)}: not text in UTF-8 (byte {error.start})") from None


def parse_json(text: str, what: str = "JSON", depth: int = JSON_DEPTH) -> Any:
    """The value of a JSON text.

    Raises:
        UntrustedFile: not JSON; nested deeper than `depth`; a number of more than 40 digits; NaN or Infinity;
            or one key twice in an object. `what` begins the message: the file's name.
    """
    check_depth(text, what, depth)

    def number(make):
        def parse(digits: str):
            if len(digits) > JSON_DIGITS:
                raise UntrustedFile(f"{what}: a number of {len(digits):,} digits")
            return make(digits)

        return parse

    def constant(word: str):
        raise UntrustedFile(f"{what}: {word} is not JSON")

    def pairs(items: list[tuple[str, Any]]) -> dict:
        made: dict = {}
        for name, value in items:
            if name in made:
                raise UntrustedFile(f"{what}: the key {shown(name)} appears twice in one object")
            made[name] = value
        return made

    try:
        return json.loads(
            text,
            parse_int=number(int),
            parse_float=number(float),
            parse_constant=constant,
            object_pairs_hook=pairs,
        )
    except UntrustedFile:
        raise
    except (ValueError, RecursionError) as error:
        raise UntrustedFile(f"{what}: not valid JSON ({shown(str(error))})") from None


def check_depth(text: str, what: str, depth: int) -> None:
    """Raise UntrustedFile if brackets outside of strings are nested deeper than `depth`. Linear."""
    level = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        character = match[0]
        if character in "[{":
            level += 1
            if level > depth:
                raise UntrustedFile(f"{what}: nested deeper than {depth} levels")
        elif character in "]}":
            level -= 1


def read_json(path: str | os.PathLike, limit: int = TEXT_BYTES, depth: int = JSON_DEPTH) -> Any:
    """The value of a JSON file. Raises UntrustedFile and OSError, see `open_regular` and `parse_json`."""
    return parse_json(read_text(path, limit), shown(path), depth)


def read_json_object(path: str | os.PathLike, limit: int = TEXT_BYTES, depth: int = JSON_DEPTH) -> dict:
    """The object in a JSON file. Raises as `read_json`, and UntrustedFile for a list or a single value."""
    value = read_json(path, limit, depth)
    if not isinstance(value, dict):
        raise UntrustedFile(f"{shown(path)}: a JSON {type(value).__name__}, expected an object")
    return value


def shown(text: str | os.PathLike, width: int = NAME_CHARACTERS) -> str:
    """A name for a message: one line, without control characters, at most `width` characters."""
    text = os.fspath(text) if not isinstance(text, str) else text
    text = os.fsdecode(text) if isinstance(text, bytes) else text
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: width + 1])
    return text if len(text) <= width else text[: width - 1] + "…"


def is_regular(path: str | os.PathLike) -> bool:
    """Whether the path is a regular file, or a link to one. False where it cannot be looked at."""
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False
