"""The error of every kernel in Triton's interpreter, on the probes of its slot at the sizes of nano.

TRITON_INTERPRET=1 python -m deskocr_kit.kernel_evidence.interpreted FILE
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..device.dtypes import dtype_name
from ..operators.digests import kernel_digest
from ..operators.kernels.candidates import CANDIDATES
from ..operators.kernels.language import triton
from ..operators.kernels.launch import KERNEL, interpreted, why_not
from ..operators.prove.probes import Sizes, probes
from ..operators.prove.proof import config_of
from ..operators.prove.runner import PASS, run_probe
from .forms import DTYPES

#: Slots whose real calls take the interpreter minutes: hard ones only.
PAIRS = ("rel_pos_attention", "conv2d", "sam_attention")


def measure() -> dict[str, dict[str, Any]]:
    """{slot: {"kernels": […], "errors": {dtype: worst relative error}, "calls": n, "failed": […]}}."""
    found: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"kernels": set(), "errors": defaultdict(float), "calls": 0, "failed": []}
    )
    for probe in probes(Sizes.of(config_of("nano"))):
        if probe.slot not in CANDIDATES or (probe.real and probe.slot in PAIRS):
            continue
        for dtype in DTYPES:
            rows = run_probe(replace(probe, real=False), torch.device("cpu"), dtype, repeats=0)
            row = next(row for row in rows if row.candidate == KERNEL)
            entry = found[probe.slot]
            if not row.kernels:  # the reference computed this call
                continue
            entry["kernels"] |= set(row.kernels)
            entry["calls"] += 1
            if row.verdict != PASS:
                entry["failed"].append(f"{probe.name}, {dtype_name(dtype)}: {row.why}")
            elif row.error is not None:
                errors = entry["errors"]
                errors[dtype_name(dtype)] = max(errors[dtype_name(dtype)], row.error)
    return {
        slot: {**entry, "kernels": sorted(entry["kernels"]), "errors": dict(entry["errors"])}
        for slot, entry in found.items()
    }


def main() -> int:
    """Write the record to the file named on the command line; exit status 1 if a call failed."""
    if (reason := why_not()) or not interpreted():
        print(reason or "kernels are compiled here; set TRITON_INTERPRET=1", file=sys.stderr)
        return 2
    slots = measure()
    record = {
        "interpreter": f"triton {triton.__version__}, TRITON_INTERPRET=1",
        "kernels": kernel_digest(),
        "slots": slots,
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["failed"] for entry in slots.values()))


if __name__ == "__main__":
    sys.exit(main())
