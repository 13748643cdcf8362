"""Rules for model folders: is config.json valid, are the weights complete?

Uses the readers of `deskocr weights check` that need no torch; that command also compares names and shapes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from model.config_check import refusals
from model.untrusted import UntrustedFile, is_regular, read_json_object
from model.weight_files import PICKLES, CheckpointError, absent, find_tensors, is_weights, names_in

from ..reading.checkpoints import VARIABLE, find_checkpoint
from .case import Case
from .report import Row

MODEL = Path(__file__).parents[2] / "model"


def rules(case: Case) -> Iterator[Row]:
    if case.live:
        if case.model is not None:
            yield check(find_checkpoint(case.model), "model folder", needed=True)
            return
        if os.environ.get(VARIABLE):  # the default checkpoint of every command
            yield check(find_checkpoint(), f"${VARIABLE}", needed=True)
        yield check(MODEL / "nano", "nano checkpoint", needed=False)
        yield check(MODEL / "deepseek-ocr", "official weights", needed=False)


def check(folder: Path, name: str, needed: bool) -> Row:
    """One row about a folder in the official layout (config.json + *.safetensors [+ index])."""
    shown = _short(folder)
    try:
        names = names_in(folder)
    except CheckpointError:
        names = []
    if not any(".safetensors" in each for each in names):
        how = "model/README.md describes how to get them and where to put them"
        if pickles := [each for each in names if each.endswith(PICKLES)]:
            return Row(
                "Model",
                name,
                "FAIL",
                f"{shown}: only pickles ({pickles[0]}), which can run code",
                "Use the *.safetensors files.",
            )
        if needed:
            return Row("Model", name, "FAIL", f"{shown}: no *.safetensors files", f"Check the path; {how}.")
        return Row("Model", name, "SKIP", f"{shown}: not present", how)
    problems = [*_config(folder), *_weights(folder)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Row(
            "Model",
            name,
            "FAIL",
            f"{shown}: {problems[0]}{more}",
            "Download that file again (a resumed download keeps the others).",
        )
    shards = [folder / each for each in names if is_weights(each) and is_regular(folder / each)]
    size = sum(path.stat().st_size for path in shards)
    lost = [file for file in ("tokenizer.json",) if not (folder / file).exists()]
    seen = f"{shown}: {len(shards)} file(s), {size / 2**20:.1f} MiB, complete"
    if lost:
        return Row(
            "Model",
            name,
            "WARN",
            f"{seen}, but no {lost[0]}",
            "Download the tokenizer too: the model cannot read pages without it.",
        )
    return Row("Model", name, "OK", seen)


def _short(path: Path) -> str:
    try:
        return os.path.relpath(path) if not os.path.relpath(path).startswith("..") else str(path)
    except ValueError:  # another drive on Windows
        return str(path)


def _config(folder: Path) -> Iterator[str]:
    path = folder / "config.json"
    try:
        config = read_json_object(path)
    except FileNotFoundError:
        yield f"config.json is {absent(path)}" if path.is_symlink() else "config.json is missing"
        return
    except OSError as error:
        yield f"config.json cannot be read ({error.strerror})"
        return
    except UntrustedFile as error:
        yield f"config.json cannot be read ({str(error).removeprefix(f'{path}: ')})"
        return
    if not {"model_type", "architectures", "language_config", "hidden_size"} & set(config):
        yield "config.json does not describe a model"
    yield from refusals(config)


def _weights(folder: Path) -> Iterator[str]:
    try:
        find_tensors(folder)
    except CheckpointError as error:
        yield str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}").rstrip(".")
