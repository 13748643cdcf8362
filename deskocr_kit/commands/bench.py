"""`deskocr bench`: the command. `deskocr_kit/benchmark/` does the work, in a child process."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..benchmark.spec import FILE, PARTIAL, BenchSpec, folder_for
from .options import takes

UNLIMITED, ORIGINAL = "unlimited_ocr", "original"


@takes(BenchSpec, without=("pages", "peer"))
def bench(
    options: BenchSpec,
    pages: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PAGE…]", help="Pages; page.txt is the true text of page.png. Default: generated."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help=f"An earlier bench.json, {UNLIMITED}, or {ORIGINAL}; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: reports/DEVICE-MODEL.")] = None,
) -> None:
    """Measure reading: time by phase, launches, memory, accuracy. Ctrl-C keeps finished results."""
    from ..benchmark import report
    from ..benchmark.child import INTERRUPTED, BenchFailed, bench
    from ..benchmark.compare import load_benchmark

    compare = compare or []
    earlier = [(name, load_benchmark(name)) for name in compare if name not in (UNLIMITED, ORIGINAL)]
    spec = replace(options, pages=tuple(map(str, pages or ())), peer=UNLIMITED in compare)
    served = spec.engine != "kit"
    if spec.graph and not served:
        need_graphs(spec.device)
    out = out or Path("reports") / folder_for(spec.engine if served else label(spec.device), spec.model)
    if (out / FILE).exists():
        print(f"{out / FILE} will be replaced at the end; use --out DIR to keep it", file=sys.stderr)
    try:
        result = bench(spec, out)
    except KeyboardInterrupt:
        print(f"kept: {out / PARTIAL}; `deskocr report` accepts it too", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BenchFailed:
        raise typer.Exit(2) from None
    print(report.text(result))
    for name, old in earlier:
        print(report.comparison_text(name, old, result))
    if ORIGINAL in compare:
        print(report.original_text())
    print(f"written to {out / FILE}; next: deskocr report {out / FILE}", file=sys.stderr)


def need_graphs(device: str) -> None:
    """Raise GraphError, before the process of the benchmark starts, if the device has no graphs."""
    from ..device import graphs, pick_device

    graphs(pick_device(device, quiet=True))


def label(device: str) -> str:
    """The device in a report's folder name: the profile of the simulated NPU, the kind of a real device."""
    from ..device import describe_device, pick_device

    where = pick_device(device, quiet=True)
    told = describe_device(where)
    return f"npu-sim-{told['profile']}" if told["simulated"] else where.type
