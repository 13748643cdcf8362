"""`deskocr doctor`: the command. `deskocr_kit/doctor/` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the report with all facts as JSON.")] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DIR", help="Diagnose files captured elsewhere: a folder or a bundle."
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FILE", help="Also write the examined data to a zip file, without secrets."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="DIR", help="nano, deepseek-ocr, or a folder to check."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Skip the probes that import torch.")] = False,
    patience: Annotated[float, typer.Option("--patience", help="Multiply every time limit by this factor.")] = 1.0,
) -> None:
    """Check this machine; report problems and remedies. Exit status: 0 usable, 1 not usable, 2 nothing to diagnose or usage error."""
    from ..doctor.main import run

    raise typer.Exit(run(as_json, source, bundle, model, quick, patience))
