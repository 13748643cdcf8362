"""`deskocr notebooks run`: run the notebooks and store them, ready to be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run the notebooks.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def group() -> None:
    """Run the notebooks."""


@app.command()
def run(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="[NOTEBOOK…]", help="Default: all.")] = None,
) -> None:
    """Run each in a fresh kernel, top to bottom, and store it without what changes from run to run."""
    from deskocr_kit.notebooks import execute, find
    from deskocr_kit.progress import bar

    chosen = list(find(paths))
    with bar(total=len(chosen), unit="notebook") as progress:
        for path in chosen:
            execute(path)
            progress.print(f"stored {path}")
            progress.update()
