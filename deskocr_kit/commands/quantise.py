"""`deskocr quantise`: the effect of 8-bit and 4-bit weights on text, memory and speed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ..reading.options import ReadingOptions
from ..reading.sample_pages import sample_pages
from .options import takes
from .terminal import note


@takes(ReadingOptions, only=("model", "device", "dtype", "max_tokens"), model="nano")
def quantise(
    options: ReadingOptions,
    bits: Annotated[str, typer.Option(help="8, 4 or 8,4.")] = "8,4",
    pages: Annotated[int, typer.Option(min=1, help="Sample pages to read, at most 6.")] = 6,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Compare plain and quantised weights on the sample pages. Writes no files.

    same token: share of places, in the text read with plain weights, where the most likely next token is the
    same. ms/token: decoding only, a fixed number of tokens, smallest of three; processor time on a CPU.
    """
    from ..quantise.table import compare
    from ..reading.reader import Reader

    if not (words := bits.split(",")) or not set(words) <= {"8", "4"}:
        raise typer.BadParameter(f"--bits {bits}: expected 8, 4 or 8,4")
    note("reading the sample pages with each kind of weights; this may take a while")
    found = compare(
        lambda: Reader.load(options),
        [int(b) for b in words],
        sample_pages()[:pages],
        options.max_tokens,
    )
    print(json.dumps(found.record(), indent=1) if as_json else found)
