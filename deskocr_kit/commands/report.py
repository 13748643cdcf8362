"""`deskocr report`: write report.md and report.html for one bench.json."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


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
    for path in report.save(result, out or file.parent, earlier, "original" in names):
        print(f"wrote {path}", file=sys.stderr)
