"""`deskocr kernels`: what is known about each kernel in Triton. Needs neither Triton nor a device."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def kernels(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the levels of evidence of each kernel: interpreted, lowered, assembled, compiled, run."""
    from ..kernel_evidence.table import evidence, records, table
    from ..operators.kernels.launch import why_not

    found = evidence()
    stored = records()
    interpreted, lowered, assembled = stored["interpreted"], stored["lowered"], stored["assembled"]
    if as_json:
        about = {"interpreter": interpreted["interpreter"], "compiler": lowered["compiler"]}
        about["assembler"] = assembled["compiler"]
        print(json.dumps({**about, "kernels": [asdict(each) for each in found]}, indent=1))
        return
    print(table(found))
    print(
        f"\ninterpreted: {interpreted['interpreter']}, worst error against fp64 on the probes of the slots\n"
        f"lowered: {lowered['compiler']}, every form of the official size for {lowered['chip']}\n"
        f"assembled: {assembled['compiler']}, the same forms as machine code for CUDA cards, none ran; "
        "shared memory of a program, stack of a thread in bytes\n"
        f"compiled, run: {_devices()}\n"
        f"here: {why_not() or 'kernels can run'}"
    )


def _devices() -> str:
    """What the records of the levels `compiled` and `run` are of."""
    from ..kernel_evidence.on_device import LEVELS, stored_record
    from ..kernel_evidence.table import DATA

    found = {level: stored_record(DATA / f"{level}.json") for level in LEVELS.values()}
    told = [
        f"{level} on {record['device']}, torch {record['torch']}" for level, record in found.items() if record
    ]
    return "; ".join(told) or "no record of a CUDA card or an NPU is stored"
