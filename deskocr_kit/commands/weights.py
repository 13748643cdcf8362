"""`deskocr weights check`: check the files of a folder of weights, without loading the weights.

The header of a safetensors file holds the name, shape, dtype and place of every tensor, so the length of the
file is known. This check finds wrong and incomplete files in a second. Only a checksum finds a changed byte
in the data (`--hash`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.official import CHECKPOINTS
from model.untrusted import is_regular, open_regular

from ..display.printable import printable
from ..reading.checkpoints import VARIABLE, find_checkpoint

if TYPE_CHECKING:
    from model.examination import Finding

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check folders of weights.")

PIECE = 1 << 24  # bytes


@app.callback()
def weights() -> None:
    """Check folders of weights."""


@app.command()
def check(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="[FOLDER]",
            help=f"A folder, or nano, {', '.join(CHECKPOINTS)}. Default: ${VARIABLE}, then "
            "model/deepseek-ocr if it has a config.json, then nano.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    hashes: Annotated[
        bool, typer.Option("--hash", help="Also print the SHA-256 of every file, as the hubs show it.")
    ] = False,
) -> None:
    """Check whether a folder of weights is complete. Exit status: 0 usable, 1 not usable."""
    place = find_checkpoint(folder)
    from model.examination import examine

    made = examine(place)
    facts, verdict = facts_of(made), sentence(made)
    if hashes and place.is_dir():
        facts["sha256"] = {path.name: sha256(path) for path in sorted(place.iterdir()) if is_regular(path)}
    if as_json:
        rows = [asdict(each) for each in made.findings]
        answer = {"folder": str(place), "usable": made.usable, "verdict": verdict, "rows": rows, **facts}
        print(json.dumps(answer, indent=1))
    else:
        print(printable(text(place, made.findings, facts, verdict)))
    raise typer.Exit(0 if made.usable else 1)


def facts_of(made) -> dict:
    """Files, tensors, bytes, dtypes and whether the size is official, as far as they were found."""
    if not made.entries:
        return {}
    found: dict[str, object] = {"files": {path.name: path.stat().st_size for path in made.files}}
    found |= {"tensors": len(made.entries), "bytes": made.bytes, "dtypes": made.dtypes}
    return {**found, "model": made.config.checkpoint.name, "official": made.official}


def sentence(made) -> str:
    if bad := [each.name for each in made.findings if each.status == "FAIL"]:
        return f"NOT usable: {', '.join(bad)}"
    what = "complete, the official network" if made.official else "complete"
    warned = [each.name for each in made.findings if each.status == "WARN"]
    return what + (f"; warnings: {', '.join(warned)}" if warned else "")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces, since the file may be larger than the memory."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    from ..display.progress import bar

    with open_regular(path) as file, bar(path.stat().st_size, "B") as progress:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            progress.update(size)
    return digest.hexdigest()


def text(folder: Path, rows: list[Finding], facts: dict, verdict: str) -> str:
    lines = [f"deskocr weights check: {folder}", ""]
    for row in rows:
        lines.append(f"{row.status:<5} {row.name:<10} {row.seen}")
        if row.remedy:
            lines.append(f"{'':<16} -> {row.remedy}")
    if "sha256" in facts:
        lines += ["", "SHA-256, to compare with the hub's page of each file:"]
        lines += [f"{digest}  {name}" for name, digest in facts["sha256"].items()]
    return "\n".join([*lines, "", f"Verdict: {verdict}"])
