"""`deskocr evidence`: collect what a device measures. `deskocr_kit/evidence/` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..reading.checkpoints import named
from .terminal import note

app = typer.Typer(
    rich_markup_mode=None, help="Collect evidence from a device, or add a bundle that was sent."
)


@app.callback(invoke_without_command=True)
def evidence(
    context: typer.Context,
    device: Annotated[str, typer.Option(help="npu, cuda, cpu, npu-sim (a rehearsal), with :index.")] = "auto",
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "--model", help=f"{', '.join(named())}, or a folder.")
    ] = "deepseek-ocr",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Working folder. Default: out/evidence-DEVICE-CHECKPOINT."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="For all steps together.")] = 30.0,
    skip: Annotated[str, typer.Option(help="Comma-separated steps to leave out.")] = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished steps again.")] = False,
    include_pages: Annotated[
        bool, typer.Option("--include-pages", help="Also pack the executed notebooks, which show pages.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Run and pack without asking.")] = False,
) -> None:
    """Run doctor, weights, kernels, prove, bench, profile, claims and notebooks, and pack what they wrote.

    A step that was interrupted or failed runs again next time; finished ones do not. The zip contains no
    user names, host names, paths or secrets, and no pictures of pages. Exit status: 0 packed, 1 not packed.
    """
    if context.invoked_subcommand is not None:
        return
    from ..evidence import collect
    from ..evidence.pack import PackError, listing, write_bundle
    from ..evidence.run import DONE, estimate, setting_of
    from ..evidence.steps import NAMES

    left_out = [name.strip() for name in skip.split(",") if name.strip()]
    if unknown := [name for name in left_out if name not in NAMES]:
        raise typer.BadParameter(f"--skip {unknown[0]}: there is no such step; steps are {', '.join(NAMES)}")
    setting, facts = setting_of(device, checkpoint, out or Path("out"))
    folder = out or Path("out") / f"evidence-{facts['label']}-{facts['checkpoint']}"
    setting, facts = setting_of(device, checkpoint, folder)
    planned = estimate(setting, left_out)
    print(f"evidence from {facts['device']['name']} with {facts['checkpoint']}, in {folder}")
    for step, about in planned:
        print(f"  {step.name:<10} about {about:4.1f} min, at most {step.limit:g}: {step.about}")
    print(f"  together about {sum(about for _, about in planned):.0f} min (an estimate), at most {minutes:g}")
    if facts["simulated"]:
        print("  a SIMULATED NPU: this is a rehearsal, and its bundle is not accepted as evidence")
    if not _agreed("Run these steps?", yes):
        raise typer.Exit(1)
    outcomes = collect(setting, facts, left_out, minutes, fresh)
    lines = listing(folder, include_pages)
    print(f"\n{len(lines)} files for the bundle, before private data is removed:", *lines, sep="\n")
    if not include_pages:
        print("pictures of pages are not in it")
    target = folder.with_suffix(".zip") if not folder.suffix else Path(f"{folder}.zip")
    if not _agreed(f"Pack them into {target}?", yes):
        note(f"not packed; the files are in {folder}")
        raise typer.Exit(1)
    try:
        names = write_bundle(folder, target, include_pages)
    except PackError as error:
        print(f"deskocr evidence: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"wrote {target}: {len(names)} files. Look into it before you send it; then open an issue with it.")
    if missing := [name for name, each in outcomes.items() if each.status != DONE]:
        note(f"without a result: {', '.join(missing)}; run the command again to complete them")


def _agreed(question: str, yes: bool) -> bool:
    """Whether the user agrees. Without a terminal there is no question, and --yes is needed."""
    if yes:
        return True
    if not sys.stdin.isatty():
        note(f"{question} Nobody can be asked here: repeat with --yes")
        return False
    return typer.confirm(question, default=True)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle of `deskocr evidence`.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="The repository.")] = Path("."),
) -> None:
    """Check a bundle, render its report, and update the claims ledger and the README's table.

    Exit status: 0 added, 1 refused with its reason.
    """
    from ..display.printable import printable
    from ..evidence import BundleError
    from ..evidence.ledger import add as add_bundle

    try:
        lines = add_bundle(file, root)
    except BundleError as error:
        print(printable(f"refused: {error}".replace("\n", " ")), file=sys.stderr)
        raise typer.Exit(1) from None
    print(printable("\n".join(lines)))
