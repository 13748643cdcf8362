"""`deskocr ocr PAGE…`: read images and PDFs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(help="nano, deepseek-ocr, or a folder. Default: the official weights if present."),
]
Mode = Annotated[
    str | None, typer.Option(help="tiny, small, base, large, gundam. Default: the checkpoint's own.")
]
Prompt = Annotated[str, typer.Option(help="free, ocr, document, figure, describe, locate, or your own text.")]
Device = Annotated[str, typer.Option(help="auto, cpu, npu, npu:1, npu-sim, cuda, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16.")]
Plan = Annotated[
    str | None, typer.Option(help="«auto»: what `deskocr prove` chose here; or a plan.json. Default: none.")
]
Tokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="At most so many new tokens per page.")
]


def ocr(
    pages: Annotated[list[Path], typer.Argument(metavar="PAGE…", help="Images, PDFs, or folders of them.")],
    model: Model = None,
    mode: Mode = None,
    prompt: Prompt = "free",
    target: Annotated[str | None, typer.Option(help="What the prompt «locate» shall find.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    plan: Plan = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write text, boxes, crops here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it comes.")] = False,
    max_tokens: Tokens = None,
    weights: Annotated[str, typer.Option(help="plain, int8, int4: see deskocr quantise.")] = "plain",
) -> None:
    """Read pages. Exit status: 0 all read, 1 some could not be, 2 bad call."""
    from ..reading.page_record import output_folder, page_record

    if as_json and stream:
        raise typer.BadParameter("--json and --stream exclude each other")
    if weights not in (kinds := {"plain": 0, "int8": 8, "int4": 4}):
        raise typer.BadParameter(f"--weights {weights}: {', '.join(kinds)}")
    from model.results import write_results

    from ..display.progress import bar
    from ..reading.doubt import one_line
    from ..reading.pages import iter_pages
    from ..reading.reader import Reader

    files = files_of(pages)
    check_names(prompt, target, mode)
    check_folder(out)
    reader = Reader.load(model, device, dtype, plan)
    dtype_name = str(reader.model.dtype).removeprefix("torch.")
    if kinds[weights]:
        from ..quantise.apply import quantise

        quantise(reader.model, kinds[weights])
        dtype_name += f", {weights} weights"
    note(f"reading with {reader.name} on {reader.model.device}, {dtype_name}")
    records, taken = [], set()
    with bar(total=len(files), unit="file", hidden=stream) as progress:
        for file in files:
            for page in iter_pages(file, collect_errors=True):
                if page.error is not None:
                    records.append(page_record(page, None, reader, prompt, mode))
                    progress.write(f"error: {page.error}")
                    continue
                say = (lambda text: print(text, end="", flush=True)) if stream else None
                reading = reader.read(page.image, prompt, mode, target, max_tokens, on_text=say)
                if stream:
                    print("\n(cut off at the token limit)" if reading.truncated else "")
                for remark in page.notes:
                    progress.write(f"note: {page.file} page {page.number}: {remark}")
                record = page_record(page, reading, reader, prompt, mode) | {"weights": weights}
                if record["warnings"]:
                    progress.write(one_line(page.file, page.number, record["warnings"]))
                if out is not None:
                    folder = output_folder(out, page, taken)
                    write_results(folder, page.image, reading.text, extra=record, scores=reading.scores)
                    record["out"] = str(folder)
                records.append(record)
                if not as_json and not stream:
                    progress.print(show(record, alone=len(files) == 1))
            progress.update()
    if as_json:
        print(json.dumps(records, ensure_ascii=False, indent=1))
    if out is not None:
        note(f"results in {out}")
    raise typer.Exit(1 if any("error" in record for record in records) else 0)


def files_of(pages: list[Path]) -> list[Path]:
    """The files to read. Raises ValueError if folders were given and none holds a page."""
    from ..reading.pages import expand_inputs

    if not (files := expand_inputs(pages)):
        raise ValueError(
            f"{', '.join(map(str, pages))}: no image or PDF in it (folders inside are not opened)"
        )
    return files


def check_folder(out: Path | None) -> None:
    """Fail before the weights are loaded, not at the first page. Raises NotADirectoryError."""
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out}: this is a file; name a folder")


def check_names(prompt: str, target: str | None, mode: str | None) -> None:
    """Fail before the first page, not at it. Raises ValueError."""
    from model.processing import get_mode, resolve_prompt

    resolve_prompt(prompt, target)
    if mode is not None:
        get_mode(mode)


def show(record: dict, alone: bool) -> str:
    """The text, under a heading where there is more than one page."""
    head = "" if alone and record["page"] == 1 else f"── {record['file']} page {record['page']} ──\n"
    tail = "\n(cut off at the token limit)" if record["truncated"] else ""
    return f"{head}{record['text']}{tail}"


def note(text: str) -> None:
    """To stderr: stdout is for results."""
    print(text, file=sys.stderr)
