"""Run notebooks in fresh kernels and store them without what changes from run to run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("notebooks")
QUIET = {
    "PYTHONHASHSEED": "0",  # the same when storing and when testing: sets print in one order
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def execute(path: Path, timeout: float = 600) -> None:
    """Run one notebook top to bottom, in its folder's parent's environment, and store it in place.

    Raises nbclient's CellExecutionError for a cell that fails; the file is left as it was.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, 4)
    for name, value in {**QUIET, "DESKOCR_DEVICE": "cpu"}.items():
        os.environ.setdefault(name, value)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    strip(notebook)
    nbformat.write(notebook, path)


def strip(notebook) -> None:
    """Drop times, versions and machine names; keep sources, outputs, execution counts, ids and tags."""
    kept = {key: notebook.metadata[key] for key in ("kernelspec", "deskocr") if key in notebook.metadata}
    notebook.metadata = {**kept, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}


def find(names: list[Path] | None = None, folder: Path = FOLDER) -> Iterator[Path]:
    """The notebooks meant: those named, or all numbered ones. Raises FileNotFoundError if there is none."""
    paths = list(names or sorted(folder.glob("[0-9][0-9]_*.ipynb")))
    absent = [path for path in paths if not path.is_file()]
    if absent or not paths:
        where = ", ".join(map(str, absent)) or f"{folder}/NN_*.ipynb"
        raise FileNotFoundError(f"{where}: no such notebook; run this from the top of the kit")
    yield from paths
