"""The command without its parser, so that it runs without typer and rich."""

from __future__ import annotations

import sys
from pathlib import Path

from ..display.printable import printable
from . import bundle as bundles
from .examination import examine, examine_files


def run(
    as_json: bool = False,
    source: str | None = None,
    bundle: str | Path | None = None,
    model: str | Path | None = None,
    quick: bool = False,
    patience: float = 1.0,
) -> int:
    """Print the report and return the exit status: 0 usable, 1 not usable, 2 nothing to diagnose."""
    try:
        report = examine_files(source) if source is not None else examine(model, quick, patience)
    except (OSError, ValueError) as error:
        print(printable(f"deskocr doctor: {error}"), file=sys.stderr)
        return 2
    if as_json:
        print(report.json())
    else:
        report.print()
    if bundle is not None:
        assert report.capture is not None  # both examinations have one
        try:
            names = bundles.write(bundle, report.capture, report)
        except OSError as error:
            print(f"deskocr doctor: cannot write {bundle}: {error.strerror or error}", file=sys.stderr)
            return 2
        print(f"wrote {bundle}: {', '.join(names)}. Check its contents before you send it.", file=sys.stderr)
    return report.exit_code
