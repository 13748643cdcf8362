"""`deskocr ocr PAGE…`: read images and PDFs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..reading.options import ReadingOptions
from .options import takes
from .terminal import check_folder, files_of, note, note_reader, show


@takes(ReadingOptions)
def ocr(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE…", help="Images, PDFs, or folders of them.")],
    options: ReadingOptions,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write text, boxes, crops here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it is generated.")] = False,
    together: Annotated[
        bool, typer.Option("--together", help="Read all pages of a file in one prompt (Unlimited-OCR).")
    ] = False,
) -> None:
    """Read pages. Exit status: 0 all pages read, 1 some pages failed, 2 usage error."""
    from ..reading.page_record import output_folder, page_record

    if as_json and stream:
        raise typer.BadParameter("--json and --stream cannot be combined")
    from model.results import write_results

    from ..display.progress import bar
    from ..reading.doubt import one_line
    from ..reading.reader import Reader

    files = files_of(pages)
    check_folder(out)
    reader = Reader.load(options)
    note_reader(reader)
    if together and reader.model.config.checkpoint.pages_mode is None:
        raise typer.BadParameter(f"--together: {reader.name} reads one page per prompt; see --model")
    say = (lambda text: print(text, end="", flush=True)) if stream else None
    records, taken = [], set()
    with bar(total=len(files), unit="file", hidden=stream) as progress:
        for file in files:
            for page, reading in read_file(reader, file, options, say, together):
                if reading is None:
                    records.append(page_record(page, None, reader, options))
                    progress.write(f"error: {page.error}")
                    continue
                if stream:
                    print("\n(cut off at the token limit)" if reading.truncated else "")
                for remark in page.notes:
                    progress.write(f"note: {page.file} page {page.number}: {remark}")
                record = page_record(page, reading, reader, options)
                if record["warnings"]:
                    progress.write(one_line(page.file, page.number, record["warnings"]))
                if out is not None:
                    folder = output_folder(out, page, taken)
                    write_results(folder, page.image, reading.text, extra=record, scores=reading.scores)
                    record["out"] = str(folder)
                records.append(record)
                if not as_json and not stream:
                    progress.print(show(record, alone=len(files) == 1))
            progress.update()
    if as_json:
        print(json.dumps(records, ensure_ascii=False, indent=1))
    if out is not None:
        note(f"results in {out}")
    raise typer.Exit(1 if any("error" in record for record in records) else 0)


def read_file(reader, file: Path, options: ReadingOptions, say, together: bool):
    """Every page of a file with its reading, or with None if `page.error` is set."""
    from ..reading.pages import iter_pages

    pages = iter_pages(file, collect_errors=True)
    if not together:
        for page in pages:
            good = page.error is None
            yield page, reader.read(page.image, on_text=say, options=options) if good else None
        return
    kept = list(pages)
    images = [page.image for page in kept if page.error is None]
    readings = iter(reader.read_together(images, on_text=say, options=options) if images else ())
    for page in kept:
        yield page, next(readings) if page.error is None else None
