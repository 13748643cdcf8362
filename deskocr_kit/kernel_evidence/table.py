"""The four levels of evidence of each kernel as a table, from the stored records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..display.table import text_table
from .compiled import compiled_words
from .digest import kernel_digest
from .lowering import BUFFER

DATA = Path(__file__).parent / "data"
NOT_RUN = "not run"
HEAD = ("kernel", "slots", "interpreted", "lowered", "compiled (CUDA)", "run (NPU)")


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
            self.compiled,
            self.run,
        )


def records() -> tuple[dict[str, Any], dict[str, Any]]:
    """The stored records: interpreted, lowered. Raises ValueError if the kernels changed since."""
    found = [json.loads((DATA / f"{name}.json").read_text("utf-8")) for name in ("interpreted", "lowered")]
    for name, record in zip(("interpreted", "lowering"), found, strict=True):
        if record["kernels"] != kernel_digest():
            raise ValueError(
                f"the record of level {name!r} is of other kernels ({record['kernels']}, now "
                f"{kernel_digest()}); make it again: python -m deskocr_kit.kernel_evidence.{name}"
            )
    return found[0], found[1]


def evidence() -> list[Evidence]:
    """One entry per kernel, in the order of their names."""
    interpreted, lowered = records()
    names = {form["kernel"] for form in lowered["forms"]}
    on_card = compiled_words(DATA / "compiled.json")
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
                on_card.get(name, NOT_RUN),
            )
        )
    return made


def table(found: list[Evidence]) -> str:
    """The entries as aligned text."""
    return text_table(HEAD, [each.row() for each in found])
