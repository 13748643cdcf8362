"""`deskocr explain`: the command. `deskocr_kit/ascend/errors.py` has the table and the search."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Annotated

import typer

from model.untrusted import open_regular

NOT_KNOWN, BAD_CALL = 1, 2


def _text(words: list[str]) -> str:
    """The error text from a file, a pipe, or the words themselves. Raises ValueError, OSError."""
    if words in ([], ["-"]):
        if not words and sys.stdin.isatty():
            raise ValueError('nothing to explain. Try: deskocr explain "text" (or a file, or a pipe)')
        return sys.stdin.buffer.read().decode("utf-8", errors="replace")
    if len(words) == 1 and len(words[0]) < 4096 and "\n" not in words[0] and os.path.exists(words[0]):
        if os.path.isdir(words[0]):
            raise IsADirectoryError(f"{words[0]} is a folder; name one log file in it")
        with open_regular(words[0]) as stream:
            return stream.read().decode("utf-8", errors="replace")
    return " ".join(words)


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
        print(f"deskocr explain: {error}", file=sys.stderr)
        raise typer.Exit(BAD_CALL) from None
    matches, hints = errors.explain(text), []
    if not matches:
        hints = errors.hints(text)
        if words and len(words) == 1 and re.fullmatch(r"\S+\.(log|txt|out|err)", words[0]):
            hints.append(f"the file {words[0]} does not exist, so its name was searched as text.")
    if as_json:
        answer = {"known": bool(matches), "matches": [match.as_dict() for match in matches], "hints": hints}
        print(json.dumps(answer, indent=1, ensure_ascii=False))
    elif matches:
        print("\n\n".join(f"{match}\n  source: {match.source} ({match.status})" for match in matches[:most]))
        if len(matches) > most:
            print(f"\n({len(matches) - most} more: --most {len(matches)})")
    else:
        print("not known: no entry in the table of Ascend errors matches this text.")
        for hint in hints:
            print(f"  {hint}")
    raise typer.Exit(0 if matches else NOT_KNOWN)
