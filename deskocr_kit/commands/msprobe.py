"""`deskocr msprobe`: dumps in the format of msProbe. `deskocr_kit/compare/msprobe.py` does the work."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..reading.options import LoadOptions
from .options import MODE_HELP, takes
from .terminal import note_reader

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Write and compare dumps of msProbe.")


@app.callback()
def msprobe() -> None:
    """Write and compare dumps of msProbe (mindstudio-probe)."""


@app.command()
@takes(LoadOptions, without=("graph",))
def dump(
    options: LoadOptions,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for dump.json and its tensors.")],
    page: Annotated[Path | None, typer.Option(help="Default: a sample page.")] = None,
    mode: Annotated[str | None, typer.Option(help=MODE_HELP)] = None,
) -> None:
    """Write the inputs and outputs of every block for one page; `msprobe compare` takes two such folders."""
    from model.images import load_image

    from ..compare.msprobe import write_dump
    from ..reading.reader import Reader
    from ..reading.sample_pages import sample_pages

    image = load_image(page if page is not None else sample_pages()[0][0])
    reader = Reader.load(options)
    note_reader(reader)
    inputs = reader.inputs(image, mode=mode)
    print(f"wrote {write_dump(reader.model, lambda model: model(**inputs), out)}")


@app.command()
def compare(
    candidate: Annotated[Path, typer.Argument(metavar="DIR", help="A dump, such as that of an NPU.")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The dump to compare with.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Compare two dumps tensor by tensor, in the figures of `msprobe compare`. Exit status: 2 no dump."""
    from ..compare.msprobe import compare_dumps
    from ..display.printable import printable
    from ..display.table import text_table

    rows = compare_dumps(candidate, reference)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    head = ("tensor", "cosine", "EucDist", "MaxAbsErr", "MaxRelativeErr", "within 1/1000")
    names = ("cosine", "euclid", "largest", "largest_relative")
    body = [
        [row.name, row.problem, "", "", "", ""]
        if row.within is None
        else [row.name, *(f"{getattr(row, name):.6g}" for name in names), f"{row.within[0]:.6g}"]
        for row in rows
    ]
    print(printable(text_table(head, body)))
