"""The report of a port: operators, missing operators, exchanged parts, and accuracy.

lacking = missing(run, ported)               # {operator: number of calls} that the device refuses
port = Port(census, lacking, proof, adapted, ladder)
port.save("reports/my-model")                # report.md, plan.json, census.json, two figures
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import simulator
from ..device import is_simulated, synchronize
from ..display.markdown import fenced, harmless

if TYPE_CHECKING:
    import torch.nn as nn

    from ..compare.ladder import Ladder
    from ..operator_census.result import Census
    from ..operators.adapt.module import Adapted
    from ..operators.prove.verdict_table import Report


def missing(run: Callable[[nn.Module], object], ported: nn.Module) -> dict[str, int]:
    """{operator: number of calls} that the model's device refuses during `run(ported)`.

    The simulated NPU still computes the operators that it refuses, so one run lists them all. A real device
    stops at the first. Then the dict has one entry, whose key is the first line of the error message.
    """
    import torch

    at = next(ported.parameters()).device
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
        return {str(error).strip().splitlines()[0]: 1}
    return {}


@dataclass
class Port:
    """The report of the port of one model: census, missing operators, proof, exchanged parts, ladder."""

    census: Census
    lacking: dict[str, int]
    proof: Report
    adapted: Adapted
    ladder: Ladder

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
        """The summary of the report: five (name, text) pairs."""
        lacking = ", ".join(f"{name} ×{n}" for name, n in self.lacking.items()) or "nothing"
        care = sorted({entry.call.operator.removeprefix("aten::") for entry in self.census.worst()})
        return [
            ("census", f"≈ {self.census.launches()} launches, {self.census.syncs()} syncs"),
            ("look at", ", ".join(care) or "nothing"),
            ("missing", lacking),
            ("exchanged", ", ".join(self.adapted.exchanged) or "nothing"),
            ("ladder", "no block diverges" if self.ladder.ok else str(self.ladder.first)),
        ]

    def to_markdown(self) -> str:
        parts = [
            ("Summary", repr(self)),
            ("Operators", repr(self.census)),
            ("Proof of the substitutes", repr(self.proof)),
            ("Plan", repr(self.proof.plan)),
            ("Exchanged parts", repr(self.adapted)),
            ("Ladder", repr(self.ladder)),
        ]
        title = harmless(f"# Port of {self.proof.checkpoint}\n\n{self.proof.heading()}\n")
        return title + "".join(f"\n## {name}\n\n{fenced(text)}\n" for name, text in parts)

    def save(self, folder: str | Path) -> list[str]:
        """Write report.md, plan.json, census.json and the figures. Returns the names of the files."""
        folder = Path(folder)
        self.census.save(folder)
        self.proof.save(folder)
        self.ladder.chart().savefig(folder / "ladder.png", dpi=110)
        (folder / "report.md").write_text(self.to_markdown(), encoding="utf-8")
        return sorted(path.name for path in folder.iterdir())
