"""`deskocr batch PAGE… --out DIR`: read many pages in a run that can be interrupted and continued."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from ..reading.engines.options import ServedOptions
from .options import takes
from .terminal import check_folder, note, note_prompt, note_reader

FORMATS_HELP = "md, json, html, csv (tables), dolma, omnidocbench; several with commas, or none."
WORKERS_HELP = "Threads that prepare pages (2); with --engine ray its actors (one per device)."
THREADS = 2
DEADLINE = 1800.0  # seconds: a page with all of 8192 tokens at 5 tokens per second


@takes(ServedOptions)
def batch(
    out: Annotated[Path, typer.Option(metavar="DIR", help="For the results; the same DIR continues a run.")],
    options: ServedOptions,
    pages: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PAGE…",
            help="Images, PDFs (scan.pdf:1-5,9 for some pages), folders, patterns, - for stdin.",
        ),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search subfolders too.")] = False,
    dpi: Annotated[float | None, typer.Option(help="Resolution of PDF pages. Default: 144.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pages decoded together.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help=WORKERS_HELP)] = None,
    devices: Annotated[str, typer.Option(help="Several, such as npu:0,npu:1: a process each.")] = "",
    deadline: Annotated[float, typer.Option(min=0, help="Seconds for a page; 0: no limit.")] = DEADLINE,
    restart_after: Annotated[
        int, typer.Option(min=0, help="Pages until a worker is replaced; 0: never.")
    ] = 0,
    one_process: Annotated[bool, typer.Option("--one-process", help="No worker, no deadline.")] = False,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="Texts by page and settings.")] = None,
    formats: Annotated[str, typer.Option("--format", help=FORMATS_HELP)] = "md",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only pages that failed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, check, estimate; read a sample.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run on DIR.")] = False,
    log_json: Annotated[Path | None, typer.Option(metavar="FILE", help="Events, - for stderr.")] = None,
    metrics_file: Annotated[Path | None, typer.Option(metavar="FILE", help="For Prometheus.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Read many pages; run the same command again to continue an interrupted run.

    Exit status: 0 all pages read, 1 some pages failed or are pending, 2 usage error, 130 interrupted.
    """
    from ..batch.dry_run import estimate
    from ..batch.engines import Places, UsageError, devices_of
    from ..batch.progress import Progress
    from ..batch.run import Plan, run
    from ..batch.sources import sources
    from ..display.printable import printable, printable_json
    from ..display.progress import bar

    check_folder(out)
    note_prompt(options)
    if not pages and not retry_failed:
        raise typer.BadParameter("no PAGE was given; only --retry-failed works without one")
    files = sources(pages, recursive=recursive) if pages else []
    plan = Plan(
        batch_size=batch_size,
        workers=workers or THREADS,
        dpi=dpi,
        cache=cache,
        formats=formats_of(formats),
        gallery=True,
        wait=wait,
        retry_failed=retry_failed,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's Ctrl-C; works under nohup
    try:
        places = devices_of(
            options,
            Places(devices, one_process, deadline, restart_after, batch_size, note, workers or 0),
        )
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    if dry_run:
        found = estimate(files, places, options, plan)
        print(printable_json(found.record()) if as_json else printable(repr(found)))
        raise typer.Exit(1 if found.damaged else 0)
    with bar(total=0, unit="page") as shown:
        told = None if shown.disable else shown
        progress = Progress(told, log=log_json, metrics=metrics_file, quiet=False)
        summary = run(files, out, places, options, plan, progress, lambda about: note_reader(about.reader))
    print(printable_json(summary.record()) if as_json else printable(repr(summary)))
    note(f"results in {out}; look at {out / 'index.html'}")
    incomplete = summary.failed or summary.stopped or summary.pending
    raise typer.Exit(130 if summary.interrupted else 1 if incomplete else 0)


def formats_of(names: str) -> list[str]:
    """ "md,csv" -> the names. Raises typer.BadParameter."""
    from ..batch.formats import FORMATS

    found = [name for each in names.lower().split(",") if (name := each.strip()) and name != "none"]
    if unknown := [name for name in found if name not in FORMATS]:
        raise typer.BadParameter(f"unknown format {unknown[0]!r}; choose from {', '.join(FORMATS)}")
    return list(dict.fromkeys(found))
