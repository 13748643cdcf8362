"""`deskocr evaluate`: accuracy on published benchmarks. `deskocr_kit/evaluation/` does the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.modes import MODES, get_mode

from ..reading.options import ReadingOptions
from .options import takes
from .terminal import check_folder, note, note_reader


@takes(ReadingOptions, without=("mode", "target"))
def evaluate(
    options: ReadingOptions,
    omnidocbench: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with OmniDocBench.json and images/.")
    ] = None,
    fox: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of NAME.png beside NAME.txt, its true text.")
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(help=f"Comma-separated: {', '.join(MODES)}. Default: the checkpoint's own."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="DIR/MODE/PICTURE.md, which the official scorers take.")
    ] = Path("out/evaluate"),
    keep: Annotated[bool, typer.Option("--keep", help="Score predictions that are there already.")] = False,
    pages: Annotated[int | None, typer.Option(min=1, help="Only the first pages.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Read the pages of a benchmark, write predictions for its official scorer, and score them here.

    The score printed is this kit's own metric; it is not the benchmark's. Exit status: 0 all pages read,
    1 some pages failed, 2 usage error.
    """
    if (omnidocbench is None) == (fox is None):
        raise typer.BadParameter("expected one of --omnidocbench DIR and --fox DIR")
    names: list[str | None] = (
        [None] if modes is None else [get_mode(name.strip()).name for name in modes.split(",")]
    )
    check_folder(out)
    from ..display.printable import printable
    from ..display.progress import bar
    from ..evaluation import benchmarks
    from ..evaluation.published_accuracy import benchmark_text, read_benchmark
    from ..reading.reader import Reader

    if omnidocbench is not None:
        kind, found = "omnidocbench", benchmarks.omnidocbench(omnidocbench)[:pages]
    else:
        assert fox is not None  # one of the two is given
        kind, found = "fox", benchmarks.fox(fox)[:pages]
    reader = Reader.load(options)
    note_reader(reader)
    with bar(total=len(found) * len(names), unit="page") as progress:

        def counted(some):
            for page in some:
                yield page
                progress.update()

        record = read_benchmark(
            reader, found, names, out, kind, options.prompt, options.max_tokens, counted, keep
        )
    print(json.dumps(record, indent=1, ensure_ascii=False) if as_json else printable(benchmark_text(record)))
    note(f"predictions and evaluation.json in {out}")
    raise typer.Exit(1 if any(each["failed"] for each in record["modes"].values()) else 0)
