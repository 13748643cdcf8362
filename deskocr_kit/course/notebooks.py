"""Runs notebooks in fresh kernels: in place, or as a copy for a report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path("notebooks")
QUIET = {
    "PYTHONHASHSEED": "0",  # sets print in the same order when storing and when testing
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not one in the user's folder
}
# No NPU can be simulated in a process where torch_npu has loaded itself.
ALONE = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
SCRIPT, SCRIPT_END = re.compile(r"<script\b", re.IGNORECASE), re.compile(r"</script\s{0,20}>", re.IGNORECASE)


def execute(path: Path, timeout: float = 600) -> None:
    """Run one notebook from top to bottom, with its folder as working directory, and store it in place.

    Raises nbclient's CellExecutionError if a cell fails; the file then stays as it was. Raises
    PermissionError, before anything runs, if the file cannot be written.
    """
    import nbformat
    from nbclient import NotebookClient

    if not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise PermissionError(f"{path} cannot be written; --out FOLDER writes an executed copy elsewhere")

    notebook = nbformat.read(path, 4)
    os.environ.setdefault("DESKOCR_DEVICE", "cpu")
    for name, value in _environment(os.environ["DESKOCR_DEVICE"]).items():
        os.environ.setdefault(name, value)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    strip(notebook)
    fresh = path.with_suffix(".new")
    nbformat.write(notebook, fresh)
    fresh.replace(path)  # atomic: an interrupted write leaves the stored notebook complete


def execute_copy(path: Path, out: Path, parameters: dict[str, str], timeout: float = 3600) -> list[Path]:
    """Run a copy of one notebook with `parameters`; write out/NAME.ipynb and out/NAME.html.

    `parameters` replace the values of the parameters cell. The stored notebook does not change. If a cell
    fails, the copy is written up to that cell and papermill's PapermillExecutionError is raised. Raises
    ValueError for a parameter that the notebook does not have, and if `out` is the notebook's own folder.
    """
    import papermill

    if out.resolve() == path.parent.resolve():
        raise ValueError(f"{out} contains the stored notebooks; choose another folder for the copies")
    known = parameters_of(path)
    if unknown := sorted(set(parameters) - known):
        raise ValueError(
            f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    out.mkdir(parents=True, exist_ok=True)
    copy = out / path.name
    before = {name: os.environ.get(name) for name in (*QUIET, *ALONE, "DESKOCR_DEVICE")}
    if "device" in parameters:
        os.environ["DESKOCR_DEVICE"] = parameters["device"]
    for name, value in _environment(os.environ.get("DESKOCR_DEVICE", "cpu")).items():
        os.environ.setdefault(name, value)
    try:
        papermill.execute_notebook(
            str(path), str(copy), parameters, kernel_name="python3", cwd=str(path.parent),
            progress_bar=False, execution_timeout=timeout,
        )  # fmt: skip
    finally:
        for name, old in before.items():
            os.environ.pop(name, None) if old is None else os.environ.__setitem__(name, old)
        if copy.is_file():
            _say_how(copy, parameters)
            page = copy.with_suffix(".html")
            page.write_text(to_html(copy), encoding="utf-8")
    return [copy, page]


def lacking(path: Path) -> list[str]:
    """What a notebook needs, by its metadata, and this environment does not have."""
    needs = json.loads(path.read_text("utf-8"))["metadata"].get("deskocr", {}).get("needs", [])
    return [need for need in needs if need == "triton" and not has_triton()]


def has_triton() -> bool:
    """Whether kernels can be interpreted: Triton 3.4 or newer, for Linux. triton-ascend 3.2 is older."""
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(map(int, found.split(".")[:2])) >= (3, 4)


def parameters_of(path: Path) -> set[str]:
    """The names that a notebook's parameters cell assigns."""
    import papermill

    return set(papermill.inspect_notebook(str(path)))


def _environment(device: str) -> dict[str, str]:
    """Environment variables of a kernel for a device. Variables that are already set keep their value."""
    return {**QUIET, **(ALONE if device.startswith(("cpu", "npu-sim")) else {})}


def _say_how(copy: Path, parameters: dict[str, str]) -> None:
    """Insert a line below the card that states the device and parameters of this copy."""
    import nbformat

    notebook = nbformat.read(copy, 4)
    with_what = ", ".join(f"{name} `{value}`" for name, value in parameters.items())
    line = f"*This copy was executed with {with_what}.*"
    if str(parameters.get("device", "")).startswith("npu-sim"):
        line += " *The NPU is simulated: no time in it is an NPU's.*"
    if str(parameters.get("device", "")) == "cpu":
        line += " *No time in it is an NPU's.*"
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(line))
    nbformat.write(notebook, copy)


def to_html(path: Path) -> str:
    """A self-contained HTML page: embedded images, no scripts, fonts or styles from other sources."""
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter(template_name="lab", embed_images=True).from_filename(str(path))
    page = without_scripts(page)
    return re.sub(r'(href="(?:\d\d_[\w.-]+))\.ipynb"', r'\1.html"', page)


def without_scripts(page: str) -> str:
    """The page without its script elements, in linear time. One without an end stays."""
    kept, position = [], 0
    while (start := SCRIPT.search(page, position)) and (end := SCRIPT_END.search(page, start.end())):
        kept.append(page[position : start.start()])
        position = end.end()
    return "".join([*kept, page[position:]])


def strip(notebook) -> None:
    """Remove times, versions and machine names. Keeps sources, outputs, execution counts, ids and tags."""
    kept = {key: notebook.metadata[key] for key in ("kernelspec", "deskocr") if key in notebook.metadata}
    notebook.metadata = {**kept, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}


def find(names: list[Path] | None = None, folder: Path = FOLDER) -> Iterator[Path]:
    """The named notebooks, or all numbered ones. Raises FileNotFoundError if one, or every one, is absent."""
    paths = list(names or sorted(folder.glob("[0-9][0-9]_*.ipynb")))
    absent = [path for path in paths if not path.is_file()]
    if absent or not paths:
        where = ", ".join(map(str, absent)) or f"{folder}/NN_*.ipynb"
        raise FileNotFoundError(f"{where}: no such notebook; run this in the root folder of the repository")
    yield from paths
