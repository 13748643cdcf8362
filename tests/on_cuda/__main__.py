"""What only a CUDA card can show, in at most eight minutes, with random weights made on the card.

    python -m tests.on_cuda [--out out/on_cuda.json] [--seconds 470]

In this order; what no longer fits into the time is dropped from the end:

    devices    selection, memory, events, out of memory
    batch 1    TTFT of a page, TPOT: kernels, transformers eager, plain, kernels with a graph, …
    bandwidth  a copy on the card, and the share of it that decoding reaches
    kernels    every kernel, compiled, against fp64: official sizes first, then hard shapes
    batch 16   as batch 1, for texts

The result is stored after each part; at the end also a record of the kernels, compiled.json.
Exit status: 0, or 1 if a check failed, 2 for wrong arguments, 3 if there is no CUDA device.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
from pathlib import Path

from deskocr_kit.device import DeviceError, describe_device, pick_device
from deskocr_kit.device.dtypes import dtype_name
from deskocr_kit.kernel_evidence.on_device import device_record
from deskocr_kit.operators.kernels.launch import interpreted, why_not
from model.files import write_json

from .budget import DONE, DROPPED, Deadline, Part, run_parts
from .device_checks import check_devices
from .kernel_checks import check_kernels, plan_of_checks
from .show import part_text, summary
from .speed import copy_bandwidth, time_forms
from .subject import BATCH, Subject, official, tiny

NO_CARD = 3
LIMIT = 470  # seconds; the whole command ends within 480
GRACE = 10


def parts_of(subject: Subject, records: list[dict]) -> list[Part]:
    """The parts in the order of their importance. records: those of the parts that ran before."""
    device = subject.device
    official_size = subject.config if subject.config.decoder.width >= 1024 else None

    def kernels(deadline: Deadline) -> list[dict]:
        if reason := why_not(device):
            raise NotImplementedError(reason)
        return check_kernels(plan_of_checks(official_size, subject.hard), device, deadline)

    def timed(batch: int):
        return lambda deadline: time_forms(subject.forms(batch), device, batch, subject.rounds, deadline)

    return [
        Part("devices", 5, lambda deadline: check_devices(device)),
        Part("batch 1", 60, timed(1), share=0.5),
        Part("bandwidth", 5, lambda deadline: bandwidth(subject, records)),
        Part("kernels", 30, kernels, share=0.6),
        Part(f"batch {BATCH}", 30, timed(BATCH)),
    ]


def bandwidth(subject: Subject, records: list[dict]) -> list[dict]:
    """The rate of a copy, and the share of it that reading the weights of a token takes in each form."""
    rate = copy_bandwidth(subject.device, subject.copied)
    every = [row for record in records for row in record["rows"]]
    timed = [row for row in every if row.get("batch") == 1 and row.get("tokens_per_second")]
    return [
        {"bytes per second of a copy": rate, "bytes of weights per token": subject.active_bytes},
        *({"form": row["form"], "share": subject.active_bytes / row["tpot"] / rate} for row in timed),
    ]


def measure(subject: Subject, seconds: float, out: Path, command: str) -> list[dict]:
    """Run every part, print each and store the result after each."""
    parts: list[dict] = []
    result = {
        "format": 1,
        "command": command,
        "device": describe_device(subject.device),
        "subject": subject.label,
        "dtype": dtype_name(subject.dtype),
        "kernels": "none" if why_not(subject.device) else "interpreted" if interpreted() else "compiled",
        "complete": False,
        "parts": parts,
    }
    print(f"{result['device']['name']}, {subject.label}, {result['dtype']}, kernels {result['kernels']}")

    def note(record: dict) -> None:
        parts.append(record)
        write_json(out, result)
        print(part_text(record), flush=True)

    run_parts(parts_of(subject, parts), Deadline(seconds), note)
    result["complete"] = True
    write_json(out, result)
    if result["kernels"] == "compiled":
        rows = [row for part in parts if part["name"] == "kernels" for row in part["rows"]]
        write_json(out.with_name("compiled.json"), device_record(rows, result["device"]))
    print(summary(parts))
    return parts


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.on_cuda", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("out/on_cuda.json"))
    parser.add_argument("--seconds", type=float, default=LIMIT, help=f"at most {LIMIT}")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu only with --size tiny")
    parser.add_argument("--size", choices=("official", "tiny"), default="official", help="tiny: for tests")
    asked = parser.parse_args(arguments)
    if not 0 < asked.seconds <= LIMIT:
        parser.error(f"--seconds {asked.seconds:g}: at most {LIMIT}")
    if asked.device == "cpu" and asked.size != "tiny":
        parser.error("--device cpu measures nothing of use at the official size; add --size tiny")
    try:
        device = pick_device(asked.device, quiet=True)
    except DeviceError as error:
        print(f"{error}. Nothing was measured.", file=sys.stderr)
        return NO_CARD
    if device.type not in ("cuda", "cpu"):
        parser.error(f"--device {asked.device}: this command is about CUDA cards")
    if device.type == "cuda" and interpreted():
        parser.error("unset TRITON_INTERPRET: kernels must be compiled here")
    if device.type == "cuda":
        faulthandler.dump_traceback_later(asked.seconds + GRACE, exit=True)  # a kernel that hangs ends here
    subject = official(device) if asked.size == "official" else tiny(device)
    given = sys.argv[1:] if arguments is None else arguments
    records = measure(subject, asked.seconds, asked.out, " ".join(["python -m tests.on_cuda", *given]))
    return int(any(record["state"] not in (DONE, DROPPED) for record in records))


if __name__ == "__main__":
    sys.exit(main())
