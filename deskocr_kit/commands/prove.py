"""`deskocr prove`: the command. `deskocr_kit/operators/prove/` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..device.dtypes import DTYPES
from ..device.selection import KINDS, SIMULATED


def prove(
    device: Annotated[
        str, typer.Option(help=f"auto, {', '.join(KINDS)}, npu:1, {SIMULATED}[:profile].")
    ] = "auto",
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}, separated by commas.")] = ",".join(DTYPES),
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint", "--model", help="nano, official-sizes[:NAME], deepseek-ocr, or a folder."
        ),
    ] = "nano",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for reports.")] = Path("reports"),
    slots: Annotated[str | None, typer.Option(help="Comma-separated slots. Writes no plan.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed samples per candidate.")] = 7,
) -> None:
    """Prove every substitute on this device and write plan.json. Exit status 1: a candidate ran but was wrong."""
    from ..operators.prove.proof import folder_name
    from ..operators.prove.proof import prove as run

    def tell(text: str) -> None:
        end = "\r\033[K" if sys.stderr.isatty() else "\n"
        print(text, end=end, file=sys.stderr, flush=True)

    wanted = slots.split(",") if slots else None
    report = run(device, dtype.split(","), checkpoint, wanted, repeats, tell=tell)
    print(report)
    if wanted is None:  # a plan of some slots would replace the plan of all
        folder = report.save(out / folder_name(device_label(device, report), Path(checkpoint).name))
        print(report.plan)
        print(f"written to {folder}", file=sys.stderr)
    raise typer.Exit(1 if report.faults() else 0)


def device_label(asked: str, report) -> str:
    """The device part of the folder name: the profile of the simulated NPU, the kind of a real device."""
    if report.simulated:
        return f"npu-sim-{report.device['profile']}"
    return str(report.device["device"]).partition(":")[0]
