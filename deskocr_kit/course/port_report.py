"""The report of a port: operators, missing operators, exchanged parts, and accuracy.

lacking = missing(run, ported)               # {operator: number of calls} that the device refuses
port = Port(census, lacking, proof, adapted, ladder)         # the census of the ported module
port.save("reports/my-model")                # report.md, plan.json, census.json, two figures
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import simulator
from ..device import is_simulated, synchronize
from ..device.dtypes import dtype_name
from ..device.module_place import place_of
from ..porting.left_behind import explained

if TYPE_CHECKING:
    import torch
    import torch.nn as nn

    from ..compare.ladder import Ladder
    from ..operator_census.result import Census
    from ..operators.adapt.module import Adapted
    from ..operators.prove.verdict_table import Report
    from ..porting.generated import Generated


def missing(run: Callable[[nn.Module], object], ported: nn.Module) -> dict[str, int]:
    """{operator: number of calls} that the model's device refuses during `run(ported)`.

    The simulated NPU still computes the operators that it refuses, so one run lists them all. A real device
    stops at the first. Then the dict has one entry, whose key is the first line of the error message.

    Raises RuntimeError, which names the tensors to move, if the model mixes two devices.
    """
    at, _ = place_of(ported)
    try:
        return _missing(run, ported, at)
    except RuntimeError as error:
        clear = explained(error, ported, at)
        if clear is None:
            raise
        raise clear from error


def _missing(run: Callable, ported: nn.Module, at: torch.device) -> dict[str, int]:
    import torch

    if is_simulated(at):
        with (
            torch.no_grad(),
            simulator.using(simulator.profile(), survey=True),
            simulator.record() as seen,
        ):
            run(ported)
        return dict(sorted(seen.by_operator("refused").items()))
    try:
        with torch.no_grad():
            run(ported)
            synchronize(at)
    except (NotImplementedError, RuntimeError) as error:
        if explained(error, ported, at) is not None:
            raise
        return {str(error).strip().splitlines()[0]: 1}
    return {}


@dataclass
class Port:
    """The report of the port of one model: census, missing operators, proof, exchanged parts, ladder.

    census: of the ported module inside the `adapt` block, so that its figures are those of the port.
    generated: the result of compare_generated, if the model generates.
    """

    census: Census
    lacking: dict[str, int]
    proof: Report
    adapted: Adapted
    ladder: Ladder
    generated: Generated | None = None

    def __repr__(self) -> str:
        return "\n".join(f"{name:<10} {text}" for name, text in self.lines())

    def _repr_html_(self) -> str:
        from html import escape

        rows = "".join(
            f'<tr><th>{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in self.lines()
        )
        return f"<table><tbody>{rows}</tbody></table>"

    def lines(self) -> list[tuple[str, str]]:
        """The summary of the report, as (name, text) pairs."""
        lacking = ", ".join(f"{name} ×{n}" for name, n in self.lacking.items()) or "nothing"
        care = sorted({entry.call.operator.removeprefix("aten::") for entry in self.census.worst()})
        text = [("generated", f"≈ {str(self.generated).splitlines()[0]}")] if self.generated else []
        of_port = self.census.place == _place(self.adapted)
        note = "" if of_port else ", not of the port: make the census of the ported module"
        return [
            ("census", f"≈ {self.census.work()}; {self.census.place or 'unknown device'}{note}"),
            ("look at", ", ".join(care) or "nothing"),
            ("missing", lacking),
            ("exchanged", ", ".join(self.adapted.exchanged) or "nothing"),
            ("ladder", "no block diverges" if self.ladder.ok else str(self.ladder.first)),
            *text,
        ]

    def to_markdown(self) -> str:
        parts = [
            ("Summary", repr(self)),
            ("Operators", repr(self.census)),
            ("Proof of the substitutes", repr(self.proof)),
            ("Plan", repr(self.proof.plan)),
            ("Exchanged parts", repr(self.adapted)),
            ("Ladder", repr(self.ladder)),
            *([("Generated text", repr(self.generated))] if self.generated else []),
        ]
        title = f"# Port of {self.proof.checkpoint}\n\n{self.proof.heading()}\n"
        return title + "".join(f"\n## {name}\n\n```\n{text}\n```\n" for name, text in parts)

    def save(self, folder: str | Path) -> list[str]:
        """Write report.md, plan.json, census.json and the figures. Returns the names of the files."""
        folder = Path(folder)
        self.census.save(folder)
        self.proof.save(folder)
        self.ladder.chart().savefig(folder / "ladder.png", dpi=110)
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")
        return sorted(path.name for path in folder.iterdir())


def _place(adapted: Adapted) -> str:
    """As in Census.place."""
    where, dtype = place_of(adapted.module)
    return f"{where} in {dtype_name(dtype)}"
