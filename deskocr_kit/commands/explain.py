"""`deskocr explain`: the command. `deskocr_kit/ascend/errors.py` has the table and the search."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import Annotated, BinaryIO

import typer

from model.untrusted import open_regular, shown

from ..display.printable import printable, printable_json

NOT_KNOWN, BAD_CALL = 1, 2
HEAD, TAIL = 16 << 20, 48 << 20  # bytes kept of the beginning and of the end of a longer log
MOST = 1 << 30  # bytes read of a pipe, which need not end


def _ends(stream: BinaryIO) -> bytes:
    """The content of a stream. Of a long one the first HEAD and last TAIL bytes, with a note on stderr."""
    head, tail = stream.read(HEAD), bytearray()
    total = len(head)
    while total < MOST and (piece := stream.read(1 << 20)):
        total += len(piece)
        tail += piece
        if len(tail) > 2 * TAIL:
            del tail[:-TAIL]
    if total > HEAD + TAIL:
        del tail[:-TAIL]
        note = f"{total:,} bytes; the first {HEAD:,} and the last {TAIL:,} are searched"
        print(f"deskocr explain: {note}", file=sys.stderr)
    return head + bytes(tail)


def _standard_input() -> bytes:
    stream = sys.stdin.buffer
    try:
        device = stat.S_ISCHR(os.fstat(stream.fileno()).st_mode) and not sys.stdin.isatty()
    except (OSError, ValueError):  # replaced by an object in memory
        device = False
    if device and stream.read(1):
        raise ValueError("standard input is a device, not a log")
    return b"" if device else _ends(stream)


def _text(words: list[str]) -> str:
    """The error text from a file, a pipe, or the words themselves. Raises ValueError, OSError."""
    if words in ([], ["-"]):
        if not words and sys.stdin.isatty():
            raise ValueError('nothing to explain. Try: deskocr explain "text" (or a file, or a pipe)')
        return _standard_input().decode("utf-8", errors="replace")
    if _is_path(words):
        if os.path.isdir(words[0]):
            raise IsADirectoryError(f"{shown(words[0])} is a folder; name one log file in it")
        with open_regular(words[0]) as stream:
            return _ends(stream).decode("utf-8", errors="replace")
    return " ".join(words)


def _is_path(words: list[str]) -> bool:
    return len(words) == 1 and len(words[0]) < 4096 and "\n" not in words[0] and os.path.exists(words[0])


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT|FILE|-]", help="Error text, a log file, or - for a pipe."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the matches as JSON.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Show at most this many matches.")] = 5,
) -> None:
    """Explain an Ascend error and its remedy. Exit status: 0 known, 1 not known, 2 nothing to explain."""
    from ..ascend import errors

    try:
        text = _text(words or [])
        if not text.strip():
            raise ValueError("the text is empty")
    except (OSError, ValueError) as error:
        print(printable(f"deskocr explain: {error}"), file=sys.stderr)
        raise typer.Exit(BAD_CALL) from None
    matches, hints = errors.explain(text), []
    if not matches:
        hints = errors.hints(text)
        if (
            words
            and re.fullmatch(r"\S{1,4096}\.(log|txt|out|err)", words[0])
            and not os.path.exists(words[0])
        ):
            hints.append(f"the file {shown(words[0])} does not exist, so its name was searched as text.")
    if as_json:
        answer = {
            "known": bool(matches),
            "fatal": errors.is_fatal(text),
            "matches": [match.as_dict() for match in matches],
            "hints": hints,
        }
        print(printable_json(answer))
    elif matches:
        shown_matches = (f"{match}\n  source: {match.source} ({match.status})" for match in matches[:most])
        print(printable("\n\n".join(shown_matches)))
        if len(matches) > most:
            print(f"\n({len(matches) - most} more: --most {len(matches)})")
    else:
        print("No entry in the table of Ascend errors matches this text.")
        for hint in hints:
            print(printable(f"  {hint}"))
    raise typer.Exit(0 if matches else NOT_KNOWN)
