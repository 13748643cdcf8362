"""`deskocr ocr PAGE…`: read images and PDFs."""

from __future__ import annotations

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..reading.ocr_options import OcrOptions
from ..reading.options import ReadingOptions
from .options import takes
from .ranks import one_message, reader_of, start
from .terminal import check_folder, files_of, note, note_prompt, note_reader, show

if TYPE_CHECKING:
    from ..reading.pages import Page


@takes(OcrOptions)
def ocr(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE…", help="Images, PDFs, or folders of them.")],
    options: OcrOptions,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write text, boxes, crops here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it is generated.")] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Read all pages of a file in one prompt (Unlimited-OCR).")
    ] = False,
) -> None:
    """Read pages. Exit status: 0 all pages read, 1 some pages failed, 2 usage error."""
    if as_json and stream:
        raise typer.BadParameter("--json and --stream cannot be combined")
    with one_message(options):
        files = files_of(pages)
        check_folder(out)
        start(options)
    with reader_of(options) as reader:
        note_reader(reader)
        note_prompt(options)
        if together and reader.model.config.checkpoint.pages_mode is None:
            raise typer.BadParameter(f"--together: {reader.name} reads one page per prompt; see --model")
        failed = read_all(reader, files, options, out, as_json, stream, together)
    raise typer.Exit(1 if failed else 0)


def read_all(
    reader, files: list[Path], options: ReadingOptions, out: Path | None, as_json: bool, stream: bool,
    together: bool,
) -> list[dict]:  # fmt: skip
    """Read and report every page; returns the records of those that failed."""
    from model.results import write_results

    from ..display.printable import printable, printable_json
    from ..display.progress import bar
    from ..reading.doubt import one_line
    from ..reading.page_record import cut_lines, explanation, failure, output_folder, page_record

    records: list[dict] = []
    taken: set[str] = set()  # folder names
    explained: set[str] = set()

    def say(text: str) -> None:
        print(printable(text, None), end="", flush=True)

    ahead = hasattr(reader.model, "generate_many") and not stream and not together
    with bar(total=len(files), unit="file", hidden=stream) as progress:
        for some in [files] if ahead else [[file] for file in files]:
            for page, read in (
                read_ahead(reader, some, options)
                if ahead
                else read_file(reader, some[0], options, say if stream else None, together)
            ):
                record: dict = {"file": page.file, "page": page.number}
                records.append(record)
                if page.error is not None:
                    record["error"] = str(page.error)
                    progress.write(f"error: {page.error}")
                    continue
                try:
                    reading = read()
                    if stream:
                        print("\n(cut off at the token limit)" if reading.truncated else "")
                    for remark in page.notes:
                        progress.write(f"note: {page.file} page {page.number}: {remark}")
                    record |= page_record(page, reading, reader, options)
                    if record["warnings"]:
                        progress.write(one_line(page.file, page.number, record["warnings"]))
                    if not as_json and not stream:
                        progress.print(show(record, alone=len(files) == 1))
                    if out is not None:
                        folder = output_folder(out, page, taken)
                        image, text, scores = page.image, reading.text, reading.scores
                        record["cut"] = write_results(folder, image, text, extra=record, scores=scores)["cut"]
                        record["out"] = str(folder)
                    for line in cut_lines(page, record["cut"]):
                        progress.write(line)
                except Exception as error:  # of this page only: memory, disk, what the model wrote
                    if os.environ.get("DESKOCR_DEBUG") or getattr(reader.model, "broken", False):
                        raise  # broken: the model is in several processes, which have lost each other
                    record["error"] = failure(page, error)
                    progress.write(f"error: {record['error']}")
                    if (more := explanation(error)) and more not in explained:
                        progress.write(more)
                        explained.add(more)
            progress.update(len(some))
    if as_json:
        print(printable_json(records))
    if failed := [record for record in records if "error" in record]:
        note(f"{len(failed)} of {len(records)} pages failed")
    if out is not None:
        note(f"results in {out}")
    return failed


def read_ahead(reader, files: list[Path], options: ReadingOptions) -> Iterator[tuple[Page, Callable]]:
    """Every page of all files, as `read_file` has them, with several pages under way in the model."""
    from ..reading.pages import iter_pages

    kept: collections.deque[Page] = collections.deque()  # pages that are under way, and bad ones between them

    def images() -> Iterator:
        for file in files:
            for page in iter_pages(file, collect_errors=True, password=options.password):
                kept.append(page)
                if page.error is None:
                    yield page.image

    def give(outcome):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for outcome in reader.read_many(images(), options=options):
        while kept[0].error is not None:
            yield kept.popleft(), give
        yield kept.popleft(), functools.partial(give, outcome)
    for page in kept:
        yield page, give


def read_file(
    reader, file: Path, options: ReadingOptions, say, together: bool
) -> Iterator[tuple[Page, Callable]]:
    """Every page of a file, with a function that reads it; it is not called if `page.error` is set."""
    from ..reading.pages import iter_pages

    pages = iter_pages(file, collect_errors=True, password=options.password)
    if not together:
        for page in pages:
            yield page, functools.partial(reader.read, page.image, on_text=say, options=options)
        return
    kept = list(pages)
    images = [page.image for page in kept if page.error is None]
    outcome: list = []  # the readings of all good pages, or the error that they share

    def read(place: int):
        if not outcome:
            try:
                outcome.append(list(reader.read_together(images, on_text=say, options=options)))
            except Exception as error:
                outcome.append(error)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0][place]

    places = itertools.count()
    for page in kept:
        yield page, functools.partial(read, next(places) if page.error is None else -1)
