"""The levels of evidence of each kernel as a table, from the stored records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..display.table import text_table
from ..operators.digests import kernel_digest
from .lowering import BUFFER
from .on_device import LEVELS, device_words

DATA = Path(__file__).parent / "data"
NOT_RUN = "not run"
HEAD = ("kernel", "slots", "interpreted", "lowered", "assembled (CUDA)", "compiled (CUDA)", "run (NPU)")
#: {module: the level whose record it makes}.
RECORDS = {"interpreted": "interpreted", "lowering": "lowered", "assembled": "assembled"}


@dataclass(frozen=True)
class Evidence:
    """What is known about one kernel. errors: worst relative error against fp64, by dtype."""

    kernel: str
    slots: tuple[str, ...]
    errors: dict[str, float]
    failed: tuple[str, ...]
    forms: int
    core: str
    buffer_bytes: int
    grid: int
    refused: tuple[str, ...]
    discrete: int = 0  # blocks that the compiled form accesses number by number, see lowering.Lowered
    assembled: tuple[dict[str, Any], ...] = ()  # the forms as machine code, see assembled.Assembled
    compiled: str = NOT_RUN
    run: str = NOT_RUN

    def row(self) -> tuple[str, ...]:
        names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
        errors = " ".join(f"{names[name]} {self.errors[name]:.0e}" for name in names if name in self.errors)
        share = f"{self.buffer_bytes / 1024:.0f} of {BUFFER // 1024} KiB"
        lowered = f"{self.forms} forms, {self.core}, {share}, grid {self.grid}" if self.forms else "no form"
        lowered += f", number by number: {self.discrete}" if self.discrete else ""
        return (
            self.kernel.removesuffix("_kernel"),
            ", ".join(self.slots) or "-",
            "; ".join(self.failed) or errors or "as part of a slot",
            f"refused: {self.refused[0]}" if self.refused else lowered,
            self.machine_code(),
            self.compiled,
            self.run,
        )

    def machine_code(self) -> str:
        """The cards, and the most that a program takes: KiB of shared memory, bytes of stack of a thread."""
        refused = [form["refused"] for form in self.assembled if form["refused"]]
        if refused or not self.assembled:
            return f"refused: {refused[0]}" if refused else "no form"
        cards = " ".join(f"sm_{each}" for each in sorted({form["capability"] for form in self.assembled}))
        shared = max(form["shared_bytes"] for form in self.assembled)
        stack = max(form["stack_bytes"] for form in self.assembled)
        return f"{cards}, {-(-shared // 1024)} KiB" + (f", stack {stack}" if stack else "")


def records() -> dict[str, dict[str, Any]]:
    """{level: its stored record}. Raises ValueError if the kernels changed since."""
    found = {}
    for module, level in RECORDS.items():
        found[level] = record = json.loads((DATA / f"{level}.json").read_text("utf-8"))
        if record["kernels"] != kernel_digest():
            raise ValueError(
                f"the record of level {module!r} is of other kernels ({record['kernels']}, now "
                f"{kernel_digest()}); make it again: python -m deskocr_kit.kernel_evidence.{module}"
            )
    return found


def evidence() -> list[Evidence]:
    """One entry per kernel, in the order of their names."""
    stored = records()
    interpreted, lowered = stored["interpreted"], stored["lowered"]
    names = {form["kernel"] for form in lowered["forms"]}
    compiled, run = (device_words(DATA / f"{level}.json") for level in LEVELS.values())
    names |= {name for slot in interpreted["slots"].values() for name in slot["kernels"]}
    made = []
    for name in sorted(names):
        mine = {slot: each for slot, each in interpreted["slots"].items() if name in each["kernels"]}
        forms = [form for form in lowered["forms"] if form["kernel"] == name]
        errors: dict[str, float] = {}
        for each in mine.values():
            for dtype, error in each["errors"].items():
                errors[dtype] = max(errors.get(dtype, 0.0), error)
        made.append(
            Evidence(
                name,
                tuple(mine),
                errors,
                tuple(line for each in mine.values() for line in each["failed"]),
                len(forms),
                "/".join(sorted({form["core"] for form in forms})),
                max((form["buffer_bytes"] for form in forms), default=0),
                max((form["grid"] for form in forms), default=0),
                tuple(form["refused"] for form in forms if form["refused"]),
                max((form.get("discrete", 0) for form in forms), default=0),
                tuple(form for form in stored["assembled"]["forms"] if form["kernel"] == name),
                compiled.get(name, NOT_RUN),
                run.get(name, NOT_RUN),
            )
        )
    return made


def table(found: list[Evidence]) -> str:
    """The entries as aligned text."""
    return text_table(HEAD, [each.row() for each in found])
