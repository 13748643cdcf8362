"""The results of `deskocr prove` as a table, as data and as a figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import write_json

from ...display.palette import GREEN, GREY, RED
from ...display.table import LEFT, Cell, html_table, markdown_table, text_table
from ..digests import kernel_digest
from ..kernels.launch import interpreted
from ..plan import Plan
from .runner import CANNOT, NEEDS_NPU, PASS, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRAP = {"call": "overflow-wrap:anywhere"}  # for narrow panes; numbers must not break at their hyphen


@dataclass
class Report:
    """All rows of one run. `device` is device.describe_device(), `command` repeats the run."""

    device: dict
    checkpoint: str
    command: str
    rows: list[Row]
    plan: Plan
    notes: list[str] = field(default_factory=list)  # what the rows do not say

    # ------------------------------------------------------------------ what holds
    def verdicts(self) -> dict[tuple[str, str, str], tuple[str, str]]:
        """{(slot, candidate, dtype): (verdict, why)}: of its worst probe."""
        found: dict[tuple[str, str, str], tuple[str, str]] = {}
        for row in self.rows:
            key = (row.slot, row.candidate, row.dtype)
            if key not in found or (found[key][0] == PASS and row.verdict != PASS):
                found[key] = (row.verdict, "" if row.verdict == PASS else f"{row.probe}: {row.why}")
        return found

    def faults(self) -> list[str]:
        """Every candidate that ran and was wrong. Candidates that cannot run here are not faults."""
        return [
            f"{slot} / {name} in {dtype}: {verdict}: {why}"
            for (slot, name, dtype), (verdict, why) in self.verdicts().items()
            if verdict not in (PASS, CANNOT)
        ]

    def table(self) -> list[dict]:
        """One line per candidate, dtype and real probe, for display."""
        used = {
            (dtype, slot, case): name
            for dtype in self.plan.choices
            for slot, cases in self.plan.names(dtype).items()
            for case, name in cases.items()
        }
        verdicts, lines = self.verdicts(), []
        for row in self.rows:
            if not row.real or (row.candidate.startswith("npu_") and row.why.startswith(NEEDS_NPU)):
                continue
            verdict, why = verdicts[row.slot, row.candidate, row.dtype]
            chosen = used.get((row.dtype, row.slot, row.case)) == row.candidate
            lines.append({
                "slot": row.slot, "call": row.probe, "candidate": row.candidate, "dtype": row.dtype,
                "verdict": verdict, "in the plan": "yes" if chosen else "", "error": row.error,
                "budget": row.budget, "ms": None if row.seconds is None else row.seconds * 1e3,
                "ratio": row.ratio, "extra MiB": None if row.extra_bytes is None else row.extra_bytes / 2**20,
                "launches": row.launches, "syncs": row.syncs, "why": why or row.why,
            })  # fmt: skip
        return lines

    @property
    def simulated(self) -> bool:
        return bool(self.device["simulated"])

    def heading(self) -> str:
        name, kind = self.device["name"], "simulated, times are not those of an NPU" if self.simulated else ""
        software = ", ".join(
            f"{k} {self.device[k]}" for k in ("torch", "torch_npu", "cann") if self.device[k]
        )
        what = ", ".join(filter(None, (self.device["device"], kind)))
        return f"{name} ({what}), {software}; {self.checkpoint}"

    def columns(self) -> list[str]:
        """The columns shown. Times of the simulated NPU are left out: they could be mistaken for an NPU's."""
        names = ["slot", "call", "candidate", "dtype", "verdict", "in the plan", "error", "budget"]
        times = [] if self.simulated else ["ms", "ratio"]
        return [*names, *times, "extra MiB", "launches", "syncs"]

    def summary(self) -> str:
        counted = [verdict for verdict, _ in self.verdicts().values()]
        passed, cannot = counted.count(PASS), counted.count(CANNOT)
        return f"{passed} pass, {cannot} cannot run here, {len(counted) - passed - cannot} fail"

    # ------------------------------------------------------------------ shown
    def __repr__(self) -> str:
        names = self.columns()
        cells = [[_shown(line[name]) for name in names] for line in self.table()]
        table = [text_table(names, cells)] if cells else []
        return "\n".join([self.heading(), *table, self.summary(), *self.faults(), *self.notes])

    def _repr_html_(self) -> str:
        names, lines = self.columns(), self.table()

        def cell(line: dict, name: str) -> Cell:
            if name != "verdict":
                return Cell(_shown(line[name]), f"{LEFT};{_WRAP.get(name, 'white-space:nowrap')}")
            colour = GREEN if line[name] == PASS else GREY if line[name] == CANNOT else RED
            return Cell(line[name], f"{LEFT};color:{colour}", "b")

        rows = [[cell(line, name) for name in names] for line in lines]
        table = html_table(names, rows, titles=[line["why"] for line in lines])
        ends = "".join(f"<p>{escape(text)}</p>" for text in self.notes)
        return f"<p>{escape(self.heading())}</p>{table}<p><b>{escape(self.summary())}</b></p>{ends}"

    def to_markdown(self) -> str:
        names = self.columns()
        rows = [[_shown(line[name]) for name in names] for line in self.table()]
        unable = [
            f"* {slot} / {name}, {dtype}: {why}"
            for (slot, name, dtype), (verdict, why) in self.verdicts().items()
            if verdict == CANNOT and not name.startswith("npu_")
        ]
        return "\n".join([
            f"# Operators on {self.heading()}", "", f"Made by `{self.command}`. {self.summary()}.", "",
            "Error: relative, norms; against the reference in fp64 or fp32 on the CPU. "
            + ("Times are left out: they are those of the simulator." if self.simulated else
               "ms: median; ratio: to the reference on the same device, measured in turn with it.")
            + " Extra MiB: the most held beyond the arguments. Budgets and their reasons: "
            "`deskocr_kit/operators/prove/budgets.json`.", "",
            *(markdown_table(names, rows) if rows else []), "", *(f"{text}.\n" for text in self.notes),
            *(["## Wrong", "", *(f"* {fault}" for fault in self.faults()), ""] if self.faults() else []),
            *(["## Cannot run here", "", *unable, ""] if unable else []),
            "## Plan", "", "```", repr(self.plan), "```", "",
        ])  # fmt: skip

    def save(self, folder: str | Path) -> Path:
        """Write operators.json, operators.md, operators.png and plan.json into the folder; return it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stored = {
            "device": self.device, "checkpoint": self.checkpoint, "command": self.command,
            "summary": self.summary(), "rows": [_stored(row) for row in self.rows],
            **({"notes": self.notes} if self.notes else {}),
        }  # fmt: skip
        if any(row.kernels for row in self.rows) and not interpreted():
            stored["kernels"] = kernel_digest()  # what the rows say of kernels is about this code
        write_json(folder / "operators.json", stored)
        (folder / "operators.md").write_text(self.to_markdown(), encoding="utf-8")
        self.figure().savefig(folder / "operators.png", dpi=110)
        self.plan.save(folder / "plan.json")
        return folder

    def figure(self) -> Figure:
        """A bar per candidate and timed call: time relative to the reference; launches on the simulated NPU.

        It shows the last dtype. Filled bars are in the plan; the number at a bar is its value.
        """
        from matplotlib.figure import Figure

        dtype = self.rows[-1].dtype if self.rows else next(iter(self.plan.choices), "")
        used = self.plan.names(dtype)
        bars = []  # (label, value, is it in the plan)
        for row in self.rows:
            value = row.launches if self.simulated else row.ratio
            if row.dtype == dtype and value is not None:
                chosen = used.get(row.slot, {}).get(row.case) == row.candidate
                bars.append((f"{row.slot}: {row.probe}: {row.candidate}", value, chosen))
        figure = Figure(figsize=(10, 0.19 * len(bars) + 1.2), layout="constrained")
        axes = figure.subplots()
        floor = 0 if self.simulated else 0.02  # a cached table takes a ten-thousandth of the time
        for y, (_, value, chosen) in enumerate(bars):
            start = 0 if self.simulated else 1
            width = max(value, floor) - start
            axes.barh(y, width, left=start, height=0.7, color=GREEN if chosen else "white", edgecolor=GREEN)
            shown = str(value) if self.simulated else _shown(float(value))
            end = max(value, floor, start)
            axes.annotate(shown, (end, y), (3, 0), textcoords="offset points", fontsize=6, va="center")
        axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=6)
        axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
        if not self.simulated:
            axes.set_xscale("log")
            axes.axvline(1, color="black", lw=0.8)
        what = (
            "launches (simulated NPU)" if self.simulated else "time / time of the reference (left is faster)"
        )
        axes.set_xlabel(f"{what}, {dtype}; filled: in the plan")
        axes.set_title(self.heading(), fontsize=8)
        axes.grid(axis="x", alpha=0.3)
        return figure


def _stored(row: Row) -> dict:
    """The row as data; only a call that started kernels of the kit names them."""
    return {name: value for name, value in asdict(row).items() if name != "kernels" or value}


def _shown(value) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return (
            "0"
            if value == 0
            else f"{value:.1e}"
            if value < 1e-2
            else f"{value:.2f}"
            if value < 100
            else f"{value:.0f}"
        )
    return str(value)
