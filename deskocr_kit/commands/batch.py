"""`deskocr batch PAGE… --out DIR`: many pages, that may be interrupted and started again."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from .ocr import Device, Dtype, Mode, Model, Plan, Prompt, Tokens, check_folder, check_names, files_of, note


def batch(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE…", help="Images, PDFs, or folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A folder per page, and summary.json.")],
    model: Model = None,
    mode: Mode = None,
    prompt: Prompt = "free",
    target: Annotated[str | None, typer.Option(help="What the prompt «locate» shall find.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    plan: Plan = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pages decoded together.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    max_tokens: Tokens = None,
) -> None:
    """Read many pages; run it again to go on where it stopped.

    Exit status: 0 all read, 1 some could not be, 2 bad call, 130 interrupted.
    """
    from ..display.progress import bar
    from ..reading.batch import read_batch
    from ..reading.pages import count_pages
    from ..reading.reader import Reader

    check_names(prompt, target, mode)
    check_folder(out)
    files = files_of(pages)
    reader = Reader.load(model, device, dtype, plan)
    dtype_name = str(reader.model.dtype).removeprefix("torch.")
    note(f"reading with {reader.name} on {reader.model.device}, {dtype_name}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's Ctrl-C, under nohup too
    with bar(total=count_pages(files), unit="page") as progress:
        summary = read_batch(
            files, reader, out, prompt=prompt, target=target, mode=mode, max_tokens=max_tokens,
            batch_size=batch_size, progress=progress,
        )  # fmt: skip
    print(json.dumps(summary.record(), ensure_ascii=False, indent=1) if as_json else summary)
    note(f"results in {out}")
    raise typer.Exit(130 if summary.interrupted else 1 if summary.failed else 0)
