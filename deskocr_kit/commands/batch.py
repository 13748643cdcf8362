"""`deskocr batch PAGE… --out DIR`: read many pages in a run that can be interrupted and continued."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from ..reading.options import ReadingOptions
from .options import takes
from .terminal import check_folder, files_of, note, note_reader


@takes(ReadingOptions)
def batch(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE…", help="Images, PDFs, or folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="For a folder per page, and summary.json.")],
    options: ReadingOptions,
    batch_size: Annotated[int, typer.Option(min=1, help="Pages decoded together.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Read many pages; run the same command again to continue an interrupted run.

    Exit status: 0 all pages read, 1 some pages failed, 2 usage error, 130 interrupted.
    """
    from ..display.printable import printable, printable_json
    from ..display.progress import bar
    from ..reading.batch import read_batch
    from ..reading.pages import count_pages
    from ..reading.reader import Reader

    check_folder(out)
    files = files_of(pages)
    reader = Reader.load(options)
    note_reader(reader)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's Ctrl-C; works under nohup
    with bar(total=count_pages(files, options.password), unit="page") as progress:
        summary = read_batch(files, reader, out, batch_size=batch_size, progress=progress, options=options)
    print(printable_json(summary.record()) if as_json else printable(repr(summary)))
    note(f"results in {out}")
    raise typer.Exit(130 if summary.interrupted else 1 if summary.failed else 0)
