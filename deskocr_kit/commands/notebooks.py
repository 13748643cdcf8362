"""`deskocr notebooks`: run and store notebooks, run copies on a device, write the solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..reading.checkpoints import named

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
    checkpoint: Annotated[
        str,
        typer.Option(help=f"{', '.join(named())}, or a folder, if a notebook uses it; needs --out."),
    ] = "",
    pages: Annotated[
        Path | None,
        typer.Option(help="Folder of NAME.png with NAME.txt, if a notebook uses it; needs --out."),
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="More parameters.")
    ] = None,
) -> None:
    """Run each notebook in a new kernel, and store it without the parts that change between runs.

    Without names, a notebook is left out if it needs a package that is not installed.
    With --out the stored notebooks do not change; an executed copy and an HTML page of each are written.
    """
    from ..course.notebooks import execute, find, lacking
    from ..display.progress import bar

    if out is None and (device or checkpoint or pages or parameter):
        raise ValueError(
            "--device, --checkpoint, --pages and --parameter need --out FOLDER: stored notebooks are run on "
            "the CPU with nano"
        )
    if wrong := [each for each in parameter or [] if "=" not in each]:
        raise ValueError(f"-p {wrong[0]}: expected NAME=VALUE")
    given = dict(each.split("=", 1) for each in parameter or [])
    offered = {"checkpoint": _from_here(checkpoint), "pages": str(pages.resolve()) if pages else ""}
    chosen = list(find(paths))
    failed = []
    with bar(total=len(chosen), unit="notebook") as progress:
        for path in chosen:
            if not paths and (absent := lacking(path)):
                progress.print(f"left out {path}: it needs {', '.join(absent)}")
            elif out is None:
                execute(path)
                progress.print(f"stored {path}")
            elif problem := _copy(path, out, {"device": device or "auto", **given}, offered):
                failed.append(path.name)
                progress.print(f"FAILED {path}: {problem}")
            else:
                progress.print(f"wrote {out / path.name} and .html")
            progress.update()
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(chosen)} notebooks failed: {', '.join(failed)}")


def _from_here(checkpoint: str) -> str:
    """A folder as an absolute path, since a notebook runs in its own folder; a name unchanged."""
    return str(Path(checkpoint).resolve()) if checkpoint and Path(checkpoint).is_dir() else checkpoint


def _copy(path: Path, out: Path, parameters: dict[str, str], offered: dict[str, str]) -> str:
    """Run a copy; return the error of a cell, or "". `offered`: parameters for notebooks that have them."""
    from papermill.exceptions import PapermillExecutionError

    from ..course.notebooks import execute_copy, parameters_of

    known = parameters_of(path)
    also = {name: value for name, value in offered.items() if value and name in known}
    try:
        execute_copy(path, out, {**parameters, **also})
    except PapermillExecutionError as error:
        return f"cell [{error.exec_count}]: {error.ename}: {error.evalue}"
    return ""


@app.command()
def solutions(paths: Paths = None) -> None:
    """Write notebooks/solutions/: every exercise solved and executed."""
    from ..course.notebooks import execute, find
    from ..course.puzzles.notebook import write

    for path in find(paths):
        written = write(path)
        if written:
            execute(written)
            print(f"stored {written}")
