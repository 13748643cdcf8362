"""Checks and messages of the commands that read pages."""

from __future__ import annotations

import sys
from pathlib import Path

from model.prompts import resolve_prompt

from ..display.printable import printable

LINE = 20_000  # characters of a line of a page's text on a terminal; a file or a pipe gets all of it


def files_of(pages: list[Path]) -> list[Path]:
    """The files to read. Raises ValueError if folders were given and none holds a page."""
    from ..reading.pages import expand_inputs

    if not (files := expand_inputs(pages)):
        raise ValueError(
            f"{', '.join(map(str, pages))}: contains no image or PDF (subfolders are not searched)"
        )
    return files


def check_folder(out: Path | None) -> None:
    """Fail before the weights are loaded, not at the first page. Raises NotADirectoryError."""
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out}: this is a file; name a folder")


def show(record: dict, alone: bool) -> str:
    """The text of a page, with a heading if there is more than one page."""
    head = "" if alone and record["page"] == 1 else f"── {record['file']} page {record['page']} ──\n"
    tail = "\n(cut off at the token limit)" if record["truncated"] else ""
    return printable(f"{head}{record['text']}{tail}", LINE if sys.stdout.isatty() else None)


def note(text: str) -> None:
    """Print to stderr: stdout is for results."""
    print(printable(text), file=sys.stderr)


def note_prompt(options) -> None:
    """Say so if the prompt has a backslash and an "n" that stay two characters."""
    if "\\n" in resolve_prompt(options.prompt, options.target):
        note(
            "the prompt has a backslash and an n, which the model reads as two characters; "
            "for a line break write $'…\\n…' in bash"
        )


def note_reader(reader) -> None:
    """Print which weights are used, on which device, and in which dtype."""
    note(f"reading with {reader.name} on {reader.where}")
