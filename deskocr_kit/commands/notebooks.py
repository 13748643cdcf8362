"""`deskocr notebooks`: run and store them, run a copy on a device, write the solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Run the notebooks.", no_args_is_help=True, rich_markup_mode=None)
Paths = Annotated[list[Path] | None, typer.Argument(metavar="[NOTEBOOK…]", help="Default: all.")]


@app.callback()
def group() -> None:
    """Run the notebooks."""


@app.command()
def run(
    paths: Paths = None,
    device: Annotated[str, typer.Option(help="cpu, npu, npu-sim, cuda; needs --out.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write executed copies and HTML here.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="More parameters.")
    ] = None,
) -> None:
    """Run each in a fresh kernel, top to bottom, and store it without what changes from run to run.

    With --out the stored notebooks stay as they are; an executed copy and an HTML page of each are written.
    """
    from deskocr_kit.notebooks import execute, find
    from deskocr_kit.progress import bar

    if out is None and (device or parameter):
        raise ValueError("--device and --parameter need --out FOLDER: stored notebooks are made on the CPU")
    chosen = list(find(paths))
    failed = []
    with bar(total=len(chosen), unit="notebook") as progress:
        for path in chosen:
            if out is None:
                execute(path)
                progress.print(f"stored {path}")
            elif problem := _copy(path, out, device, parameter or []):
                failed.append(path.name)
                progress.print(f"FAILED {path}: {problem}")
            else:
                progress.print(f"wrote {out / path.name} and .html")
            progress.update()
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(failed)}")


def _copy(path: Path, out: Path, device: str, parameter: list[str]) -> str:
    """Run a copy; what went wrong in a cell, "" if nothing did."""
    from papermill.exceptions import PapermillExecutionError

    from deskocr_kit.notebooks import execute_copy

    wrong = [each for each in parameter if "=" not in each]
    if wrong:
        raise ValueError(f"-p {wrong[0]}: write NAME=VALUE")
    parameters = dict(each.split("=", 1) for each in parameter)
    try:
        execute_copy(path, out, {"device": device or "auto", **parameters})
    except PapermillExecutionError as error:
        return f"cell [{error.exec_count}]: {error.ename}: {error.evalue}"
    return ""


@app.command()
def solutions(paths: Paths = None) -> None:
    """Write notebooks/solutions/: every exercise filled in, executed."""
    from deskocr_kit.notebooks import execute, find
    from deskocr_kit.puzzles.notebook import write

    for path in find(paths):
        written = write(path)
        if written:
            execute(written)
            print(f"stored {written}")
