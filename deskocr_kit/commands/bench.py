"""`deskocr bench`: the command. The work is in `deskocr_kit/benchmark/`, in a child process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .ocr import Device, Dtype, Mode, Plan, Prompt, Tokens

UNLIMITED, ORIGINAL = "unlimited_ocr", "original"


def bench(
    pages: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PAGE…]", help="With the truth of page.png in page.txt. Default: drawn."),
    ] = None,
    model: Annotated[str, typer.Option(help="nano, deepseek-ocr, or a folder.")] = "nano",
    device: Device = "auto",
    dtype: Dtype = "auto",
    plan: Plan = None,
    mode: Mode = None,
    prompt: Prompt = "free",
    max_tokens: Tokens = None,
    count: Annotated[int, typer.Option(min=1, help="Pages to draw of each length.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the drawn pages.")] = 2026,
    repeats: Annotated[int, typer.Option(min=1, help="Timed readings of each page.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Readings before, not counted.")] = 1,
    success_cer: Annotated[float, typer.Option(help="A page is read if its CER is at most this.")] = 0.1,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Store the text of given pages.")] = False,
    compare: Annotated[
        list[str] | None, typer.Option(help=f"An earlier bench.json, {UNLIMITED}, or {ORIGINAL}; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: reports/DEVICE-MODEL.")] = None,
) -> None:
    """Measure reading: time by phase, launches, memory, accuracy. Ctrl-C keeps what is done."""
    from ..benchmark import report
    from ..benchmark.child import INTERRUPTED, BenchFailed, bench
    from ..benchmark.compare import load_benchmark
    from ..benchmark.spec import FILE, PARTIAL, BenchSpec, folder_for

    compare = compare or []
    earlier = [(name, load_benchmark(name)) for name in compare if name not in (UNLIMITED, ORIGINAL)]
    spec = BenchSpec(
        model=model,
        device=device,
        dtype=dtype,
        plan=plan,
        pages=tuple(map(str, pages or ())),
        count=count,
        seed=seed,
        repeats=repeats,
        warmup=warmup,
        prompt=prompt,
        mode=mode,
        max_tokens=max_tokens,
        success_cer=success_cer,
        keep_text=keep_text,
        peer=UNLIMITED in compare,
    )
    out = out or Path("reports") / folder_for(label(device), model)
    if (out / FILE).exists():
        print(f"{out / FILE} will be replaced at the end; --out DIR keeps it", file=sys.stderr)
    try:
        result = bench(spec, out)
    except KeyboardInterrupt:
        print(f"kept: {out / PARTIAL}; `deskocr report` takes it too", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BenchFailed:
        raise typer.Exit(2) from None
    print(report.text(result))
    for name, old in earlier:
        print(report.comparison_text(name, old, result))
    if ORIGINAL in compare:
        print(report.original_text())
    print(f"written to {out / FILE}; next: deskocr report {out / FILE}", file=sys.stderr)


def label(device: str) -> str:
    """What a report's folder is called after: the simulated NPU by its profile, a real device by its kind."""
    from ..device import describe_device, pick_device

    where = pick_device(device, quiet=True)
    told = describe_device(where)
    return f"npu-sim-{told['profile']}" if told["simulated"] else where.type
