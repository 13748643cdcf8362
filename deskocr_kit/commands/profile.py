"""`deskocr profile`: one page under the device's profiler. `deskocr_kit/traces/profile.py` does the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..reading.options import LoadOptions
from .options import MODE_HELP, takes
from .terminal import check_folder, note, note_reader


@takes(LoadOptions, without=("graph",))
def profile(
    options: LoadOptions,
    page: Annotated[Path | None, typer.Argument(metavar="[PAGE]", help="Default: a sample page.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the profiler's output.")] = Path(
        "out/profile"
    ),
    mode: Annotated[str | None, typer.Option(help=MODE_HELP)] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens to generate.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trace as JSON.")] = False,
) -> None:
    """Read one page under the profiler of torch_npu, CUDA or the CPU; `deskocr trace DIR` reads the result.

    On the simulated NPU and on a CPU it also writes op_statistic.csv and trace_view.json as an Ascend
    profiler does. The times of a simulated NPU are those of the host.
    """
    from model.images import load_image

    from ..reading.reader import Reader
    from ..reading.sample_pages import sample_pages
    from ..traces.profile import profile_page

    check_folder(out)
    image = load_image(page if page is not None else sample_pages()[0][0])
    reader = Reader.load(options)
    note_reader(reader)
    found = profile_page(reader, image, out, mode, tokens)
    print(json.dumps(found.to_json(), indent=1, ensure_ascii=False) if as_json else repr(found))
    note(f"written to {out}; next: deskocr trace {out}")
