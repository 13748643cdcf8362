"""`deskocr trace DIR`: what a profiler measured. `deskocr_kit/traces/` does the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def trace(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR [DIR]", help="A profiler's folder, a folder above it, or a file; two are compared."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a figure to this file.")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="The network that ran: official (its size), nano, or a folder; none: do not look for "
            "substitutes. Default: what `deskocr profile` noted, else official."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that the traced run decoded. Default: as noted, else 1.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="CHIP", help="Store the measured launch cost and bandwidth of this chip."),
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to store them. Default: reports/chips.json.")
    ] = None,
) -> None:
    """Read the output of a profiler: time by type, idle time, AI CPU, and the substitutes that would help.

    Reads the folders of the Ascend PyTorch Profiler and of msprof, traces of torch.profiler, and the record
    of the simulated NPU. Exit status: 0 read, 2 nothing to read.
    """
    from ..display.printable import printable
    from ..traces import TraceError, compare_traces, read_trace

    if len(folders) > 2:
        raise typer.BadParameter(f"expected one folder, or two to compare, got {len(folders)}")
    try:
        found = [read_trace(folder) for folder in folders]
    except TraceError as error:
        print(printable(f"deskocr trace: {error}".replace("\n", " ")), file=sys.stderr)
        raise typer.Exit(2) from None
    if len(found) == 2:
        compared = compare_traces(*found)
        print(json.dumps(compared.to_json(), indent=1, ensure_ascii=False) if as_json else repr(compared))
        return
    (one,) = found
    substitutes = None if checkpoint == "none" else _substitutes(one, checkpoint, tokens)
    if as_json:
        more = {} if substitutes is None else {"substitutes": [each.to_json() for each in substitutes]}
        print(json.dumps({**one.to_json(), **more}, indent=1, ensure_ascii=False))
    else:
        print(one)
        if substitutes is not None:
            print(f"\n{substitutes!r}")
    if calibrate is not None:
        _calibrate(one, calibrate, measured)
    if out is not None:
        one.draw().savefig(out, dpi=120)
        typer.echo(f"wrote {out}", err=True)


def _substitutes(trace, checkpoint: str | None, tokens: int | None):
    """The removals for a trace with times; None for one without."""
    from model import DeepseekOCRConfig

    from ..reading.checkpoints import find_checkpoint
    from ..traces.slot_work import network_work
    from ..traces.substitutes import removals

    if trace.device_us is None:
        return None
    name = checkpoint or trace.about.get("checkpoint") or "official"
    folder = find_checkpoint(name) if name != "official" else None
    if folder is not None and not (folder / "config.json").exists() and checkpoint is None:
        folder = None  # traced on another machine, with weights that are not here
    config = None if folder is None else DeepseekOCRConfig.from_pretrained(folder)
    noted = trace.about.get("tokens")
    work = network_work(
        config,
        mode=trace.about.get("mode") or "gundam",
        tokens=tokens or (noted if isinstance(noted, int) and noted > 0 else 1),
    )
    return removals(trace, work, trace.about.get("slots"))


def _calibrate(trace, chip: str, file: Path | None) -> None:
    from ..prediction.measured import store
    from ..traces.calibration import calibration

    stored = store(calibration(trace, chip), file)
    typer.echo(f"wrote {stored}; `deskocr predict --chip {chip} --measured {stored}` uses it", err=True)
