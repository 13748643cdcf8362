"""`deskocr report`: write report.md and report.html for one bench.json."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from model.untrusted import shown


def report(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="Written by `deskocr bench`.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: the file's folder.")] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help="An earlier bench.json, or original; repeatable.")
    ] = None,
) -> None:
    """Write report.md and a self-contained report.html with figures."""
    from ..benchmark import report
    from ..benchmark.compare import load_benchmark

    result = load_benchmark(file)
    names = compare or []
    earlier = [(name, load_benchmark(name)) for name in names if name != "original"]
    try:
        written = report.save(result, out or file.parent, earlier, "original" in names)
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:  # a file made by hand, or damaged
        why = f"{type(error).__name__}: {shown(str(error), 80)}"
        raise ValueError(f"{shown(file)}: not complete as `deskocr bench` writes it ({why})") from error
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
