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
from typing import Annotated

import typer

from model.official import CHECKPOINTS, DEEPSEEK_OCR

from ..doctor.report import Row
from ..reading.checkpoints import VARIABLE, find_checkpoint

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check folders of weights.")

# Where the hubs' own clients store the parts of an unfinished download: huggingface_hub
# (_local_folder.py) and modelscope (hub/constants.py).
PARTIAL = (".cache/huggingface/download/*.incomplete", "._____temp/**/*.*", "*.part", "*.incomplete")
PIECE = 1 << 24  # bytes
GROUP = "weights"


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
    rows, facts = examine(place)
    if hashes and place.is_dir():
        facts["sha256"] = {path.name: sha256(path) for path in sorted(place.iterdir()) if path.is_file()}
    usable = all(row.status != "FAIL" for row in rows)
    verdict = sentence(rows, facts)
    if as_json:
        answer = {"folder": str(place), "usable": usable, "verdict": verdict}
        answer["rows"] = [
            {key: value for key, value in asdict(row).items() if key != "group"} for row in rows
        ]
        print(json.dumps({**answer, **facts}, indent=1, ensure_ascii=False))
    else:
        print(text(place, rows, facts, verdict))
    raise typer.Exit(0 if usable else 1)


def examine(folder: Path) -> tuple[list[Row], dict]:
    """Rows (config, files, tensors, dtype, network, tokenizer) and facts. Stops at a fault that
    prevents further checks.
    """
    from model import DeepseekOCRConfig, loading
    from model.safetensors_io import CheckpointError

    rows, facts = [], {}

    def add(name: str, status: str, seen: str, remedy: str = "") -> None:
        rows.append(Row(GROUP, name, status, seen, remedy))

    def fault(name: str, error: CheckpointError) -> tuple[list[Row], dict]:
        add(name, "FAIL", str(error), unfinished(folder))
        return rows, facts

    try:
        config = loading.read_config(folder)
    except CheckpointError as error:
        return fault("config", error)
    add("config", "OK", describe(config))
    try:
        entries = loading.find_tensors(folder)
    except CheckpointError as error:
        return fault("files", error)
    files = sorted({entry.path for entry in entries.values()})
    facts["files"] = {path.name: path.stat().st_size for path in files}
    add("files", "OK", "; ".join(f"{name} {size:,} bytes" for name, size in facts["files"].items()))
    try:
        loading.compare(loading.official_shapes(config), entries, folder)
    except CheckpointError as error:
        return fault("tensors", error)
    facts["tensors"], facts["bytes"] = len(entries), sum(entry.size for entry in entries.values())
    add("tensors", "OK", f"all {len(entries)} names and shapes match config.json; {facts['bytes']:,} bytes")
    facts["dtypes"] = sorted({str(entry.dtype).removeprefix("torch.") for entry in entries.values()})
    add(*dtype_row(facts["dtypes"]))
    facts["model"] = config.checkpoint.name
    facts["official"] = sizes(config) == sizes(DeepseekOCRConfig.official(facts["model"]))
    add("network", "OK", network(facts, config.checkpoint))
    add(*tokenizer_row(folder, config))
    return rows, facts


def sizes(config) -> tuple:
    return config.sam, config.encoder, config.decoder, config.image_token_id


def describe(config) -> str:
    c = config.decoder
    second = "CLIP" if config.clip is not None else "query encoder"
    return (
        f"{c.layers} layers of width {c.width}, {c.experts} experts, {c.experts_per_token} active, "
        f"vocabulary {c.vocab}; SAM {config.sam.layers} x {config.sam.width}, "
        f"{second} {config.encoder.layers} x {config.encoder.width}"
    )


def dtype_row(dtypes: list[str]) -> tuple[str, str, str, str]:
    if any(not name.startswith(("float", "bfloat")) for name in dtypes):
        return ("dtype", "FAIL", ", ".join(dtypes), "Quantised copies are not supported; get the original.")
    if len(dtypes) > 1:
        return ("dtype", "WARN", ", ".join(dtypes), "Loading uses that of the first tensor; give --dtype.")
    return ("dtype", "OK", dtypes[0], "")


def network(facts: dict, official) -> str:
    """One line: which model of the family, and whether in its official size."""
    if not facts["official"]:
        name = "" if official is DEEPSEEK_OCR else f" as {official.title}"
        return f"the same architecture{name}, not in the official size"
    title = official.title
    if facts["bytes"] == official.bytes:
        return f"{title} at its official size: {official.tensors} tensors, {official.bytes:,} bytes"
    return f"{title}, stored in another dtype: the official file has {official.bytes:,} bytes"


def tokenizer_row(folder: Path, config) -> tuple[str, str, str, str]:
    """Check that tokenizer.json is JSON and gives <image> the id in config.json."""
    path, again = folder / "tokenizer.json", "Download tokenizer.json and tokenizer_config.json too."
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("version https://git-lfs"):
            pointer = "tokenizer.json is a git-lfs pointer, not the tokenizer"
            return ("tokenizer", "FAIL", pointer, "Run `git lfs pull`. " + again)
        stored = json.loads(text)
        added = {token["content"]: token["id"] for token in stored.get("added_tokens", [])}
    except FileNotFoundError:
        return ("tokenizer", "WARN", "no tokenizer.json: the weights load, but no page can be read", again)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        return ("tokenizer", "FAIL", f"tokenizer.json is damaged ({error})", again)
    if added.get("<image>") != config.image_token_id:
        seen = f"<image> is {added.get('<image>')}, but config.json has {config.image_token_id}"
        return ("tokenizer", "FAIL", seen, "It belongs to another checkpoint. " + again)
    return ("tokenizer", "OK", f"tokenizer.json, <image> is {config.image_token_id}", "")


def unfinished(folder: Path) -> str:
    """The remedy for an incomplete folder: resume a download, if a hub's client left one."""
    for pattern in PARTIAL:
        if any(folder.glob(pattern)):
            return "A download here is unfinished: run the same download command again to resume it."
    return "model/README.md lists the files that belong here and how to get them."


def sentence(rows: list[Row], facts: dict) -> str:
    if bad := [row.name for row in rows if row.status == "FAIL"]:
        return f"NOT usable: {', '.join(bad)}"
    what = "complete, the official network" if facts["official"] else "complete"
    warned = [row.name for row in rows if row.status == "WARN"]
    return what + (f"; warnings: {', '.join(warned)}" if warned else "")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, read in pieces, since the file may be larger than the memory."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    from ..display.progress import bar

    with path.open("rb", buffering=0) as file, bar(path.stat().st_size, "B") as progress:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
            progress.update(size)
    return digest.hexdigest()


def text(folder: Path, rows: list[Row], facts: dict, verdict: str) -> str:
    lines = [f"deskocr weights check: {folder}", ""]
    for row in rows:
        lines.append(f"{row.status:<5} {row.name:<10} {row.seen}")
        if row.remedy:
            lines.append(f"{'':<16} -> {row.remedy}")
    if "sha256" in facts:
        lines += ["", "SHA-256, to compare with the hub's page of each file:"]
        lines += [f"{digest}  {name}" for name, digest in facts["sha256"].items()]
    return "\n".join([*lines, "", f"Verdict: {verdict}"])
