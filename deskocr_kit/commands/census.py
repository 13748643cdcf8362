"""`deskocr census`: the operators of the model, and how an NPU runs each of them. Needs no NPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..reading.checkpoints import official_size
from ..reading.options import LoadOptions
from .options import GRID_HELP, MODE_HELP, SIZE_HELP, takes, two_numbers


@takes(LoadOptions, only=("device", "dtype"), device="cpu", dtype="fp16")
def census(
    options: LoadOptions,
    model: Annotated[str, typer.Option(help=SIZE_HELP)] = "official",
    mode: Annotated[str, typer.Option(help=MODE_HELP)] = "gundam",
    grid: Annotated[str, typer.Option(help=GRID_HELP)] = "2x3",
    page: Annotated[Path | None, typer.Option(help="Count for this page (needs weights).")] = None,
    torch_npu: Annotated[
        str | None, typer.Option(help="Version for the verdicts, such as 2.6.0.post5.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write table, JSON and figure here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    lines: Annotated[
        bool, typer.Option("--lines", help="Also list module and source line of operators with problems.")
    ] = False,
) -> None:
    """Count the operators of one page (vision, prefill, one decode step), with a verdict for an NPU."""
    across, down = two_numbers(grid)
    official = official_size(model)
    if official and page is not None:
        raise typer.BadParameter("--page needs weights: --model nano, for example")

    from model import DeepseekOCRConfig
    from model.images import load_image

    from ..device.dtypes import find_dtype
    from ..operator_census.ocr_model import census_ocr
    from ..reading.reader import Reader

    if official:
        found = census_ocr(
            DeepseekOCRConfig.official(official),
            mode,
            (across, down),
            find_dtype(options.dtype),
            torch_npu=torch_npu,
        )
    else:
        reader = Reader.load(replace(options, model=model))
        inputs = reader.inputs(load_image(page), mode=mode) if page is not None else None
        found = census_ocr(reader.model, mode, (across, down), torch_npu=torch_npu, inputs=inputs)
    print(json.dumps(found.to_json(), indent=1, ensure_ascii=False) if as_json else repr(found))
    if lines and not as_json:
        for entry in found.worst():
            call = entry.call
            place = f"in {call.module or 'the root'}, {call.site}"
            print(f"{entry.count:6} {entry.verdict}  {call.operator} {list(call.inputs)} {place}")
    if out is not None:
        for path in found.save(out):
            typer.echo(f"wrote {path}", err=True)
