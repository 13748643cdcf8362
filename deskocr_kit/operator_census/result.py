"""The result of a census: grouped, shown as text and HTML, written as JSON."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path

import torch

from model.files import write_json

from ..ascend.dispatch import CANN, VERDICTS, Verdict, composites, judge, nearest_wheel
from ..display.palette import AMBER, GREEN, RED
from ..display.table import LEFT, Cell, html_table, text_table
from ..opcount.recorder import Call
from .figure import draw

WORKS = ("launch", "h2d", "d2h", "read")
SHOWN = 24


@dataclass(frozen=True)
class Entry:
    """One kind of call, its number, and what the chosen torch_npu does with it."""

    call: Call
    count: int
    verdict: Verdict

    @property
    def falls_back(self) -> bool:
        """Whether the host computes it: no launch, but a wait, and copies in both directions."""
        return self.verdict.word == "CPU fallback" and self.call.kind == "launch"

    @property
    def launch(self) -> bool:
        return self.call.kind == "launch" and not self.falls_back

    @property
    def waits(self) -> bool:
        return (self.call.waits and self.call.kind != "host") or self.falls_back

    @property
    def copied(self) -> tuple[int, int]:
        """(bytes from host to device, bytes from device to host) of one call."""
        if self.falls_back:
            return sum(map(nbytes, self.call.outputs)), sum(map(nbytes, self.call.inputs))
        return self.call.h2d_bytes, self.call.d2h_bytes


def nbytes(text: str) -> int:
    """The bytes of a tensor that the recorder describes, such as "float16[1, 3]"."""
    dtype, _, shape = text.rstrip("]").partition("[")
    sizes = [int(size) for size in shape.split(",") if size.strip()]
    return math.prod(sizes) * getattr(torch, dtype).itemsize


@dataclass
class Recorded:
    """What a Recorder counted, before a version of torch_npu decides what an operator consists of."""

    counts: dict[Call, int]
    wholes: dict[Call, int]
    examples: dict[Call, tuple]

    def calls(self, version: str) -> Iterator[tuple[Call, int]]:
        """(call, number): composites as that wheel runs them, by their parts or whole."""
        apart = composites(version)
        for call, n in self.counts.items():
            if all(name in apart for name in call.part_of):
                yield call, n
        for call, n in self.wholes.items():
            if call.operator not in apart and all(name in apart for name in call.part_of):
                yield call, n


@dataclass
class Census:
    """Every operator call of the recorded forward.

    torch_npu: the version whose table gave the verdicts; asked: the version that was requested.
    assumed: the results that a dry run assumed instead of reading values; empty for a real run. place: where
    the module was, such as "npu:0 in float16"; "" if unknown.
    """

    entries: list[Entry]
    torch_npu: str
    asked: str
    subject: str = ""
    assumed: tuple[str, ...] = ()
    place: str = ""
    every: str = ".rows()"  # how to see all rows
    recorded: Recorded = field(default_factory=lambda: Recorded({}, {}, {}), repr=False)

    @classmethod
    def make(
        cls,
        recorded,
        torch_npu: str | None = None,
        subject: str = "",
        assumed=(),
        place: str = "",
        every: str = ".rows()",
    ) -> Census:
        """Judge the calls that a Recorder counted. torch_npu: see ascend.dispatch.nearest_wheel."""
        recorded = Recorded(dict(recorded.counts), dict(recorded.wholes), dict(recorded.examples))
        version = nearest_wheel(torch_npu)
        entries = [
            Entry(call, n, judge(call.operator, call.kind, recorded.examples[call], call.options, version))
            for call, n in recorded.calls(version)
        ]
        entries.sort(key=lambda e: (list(VERDICTS).index(e.verdict.word), -e.count))
        asked = torch_npu or version
        return cls(entries, version, asked, subject, tuple(sorted(assumed)), place, every, recorded)

    def judged_by(self, torch_npu: str) -> Census:
        """The same run, judged for another version of torch_npu."""
        return Census.make(self.recorded, torch_npu, self.subject, self.assumed, self.place, self.every)

    # ------------------------------------------------------------------ counting
    def phases(self) -> list[str]:
        return list(
            dict.fromkeys(e.call.phase for e in sorted(self.entries, key=lambda e: _when(e.call.phase)))
        )

    def select(self, phase: str | None = None, operator: str | None = None, module: str = "") -> list[Entry]:
        """Entries of one phase, one operator ("convolution" or "aten::convolution"), below one module."""
        return [
            e
            for e in self.entries
            if (phase is None or e.call.phase == phase)
            and (
                operator is None or e.call.operator.removeprefix("aten::") == operator.removeprefix("aten::")
            )
            and (not module or (e.call.module + ".").startswith(module + "."))
        ]

    def launches(self, phase: str | None = None) -> int:
        """Number of operators that give the device work; CANN may start several kernels for one."""
        return sum(e.count for e in self.select(phase) if e.launch)

    def syncs(self, phase: str | None = None) -> int:
        """Number of times that the host waits for the device."""
        return sum(e.count for e in self.select(phase) if e.waits)

    def traffic(self, phase: str | None = None) -> tuple[int, int]:
        """Bytes from host to device, and from device to host."""
        calls = [(e.count, e.copied) for e in self.select(phase)]
        return sum(n * up for n, (up, _) in calls), sum(n * down for n, (_, down) in calls)

    def work(self, phase: str | None = None) -> str:
        """Launches and syncs as text, for example "243 launches, 1 sync"."""
        launches, syncs = self.launches(phase), self.syncs(phase)
        return f"{launches} launch{'es' * (launches != 1)}, {syncs} sync{'s' * (syncs != 1)}"

    def flops(self, phase: str | None = None) -> int:
        return sum(e.count * e.call.flops for e in self.select(phase))

    def verdicts(self, phase: str | None = None) -> dict[str, int]:
        """{verdict: calls}, worst first, without views and without work on the host."""
        found: collections.Counter[str] = collections.Counter()
        for e in self.select(phase):
            if e.call.kind in WORKS:
                found[e.verdict.word] += e.count
        return {word: found[word] for word in VERDICTS if found[word]}

    def operators(self, phase: str | None = None) -> dict[str, int]:
        """{operator: calls} of the work of the device, most frequent first."""
        found: collections.Counter[str] = collections.Counter()
        for e in self.select(phase):
            if e.call.kind in WORKS:
                found[e.call.operator] += e.count
        return dict(found.most_common())

    def worst(self) -> list[Entry]:
        """The entries that a port must examine: CPU fallback, AI CPU, slow kernel and unknown."""
        words = ("CPU fallback", "AI CPU", "slow kernel", "unknown")
        return [e for e in self.entries if e.verdict.word in words and e.call.kind in WORKS]

    def worst_verdicts(self) -> dict[str, str]:
        """{operator, named as in the table: the worst verdict of its calls}, worst first."""
        found: dict[str, str] = {}
        for row in self.rows():  # worst first
            found.setdefault(row["operator"], row["verdict"])
        return found

    # ------------------------------------------------------------------ showing
    def rows(self) -> list[dict]:
        """One dict per operator and verdict: calls per phase, reason, example of shapes, module, lines."""
        grouped: dict[tuple, list[Entry]] = {}
        for e in self.entries:
            if e.call.kind in WORKS:
                grouped.setdefault((e.verdict.word, e.call.operator, e.verdict.why), []).append(e)
        rows = []
        for (word, operator, why), group in grouped.items():
            first = max(group, key=lambda e: e.count)
            calls = {p: sum(e.count for e in group if e.call.phase == p) for p in self.phases()}
            rows.append(
                {
                    "verdict": word,
                    "operator": operator.removeprefix("aten::"),
                    "calls": calls,
                    "total": sum(calls.values()),
                    "why": why,
                    "source": first.verdict.source,
                    "example": ", ".join(first.call.inputs),
                    "dtypes": sorted({text.partition("[")[0] for e in group for text in e.call.inputs}),
                    "shapes": len({e.call.inputs for e in group}),
                    "module": first.call.module,
                    "sites": list(dict.fromkeys(e.call.site for e in group)),
                }
            )
        order = list(VERDICTS)
        return sorted(rows, key=lambda r: (order.index(r["verdict"]), -r["total"]))

    def __repr__(self) -> str:
        phases = self.phases()
        rows = self.rows()
        head = ["verdict", "operator", *(p or "calls" for p in phases), "line"]
        body = [
            [r["verdict"], r["operator"], *(str(r["calls"][p] or "-") for p in phases), _sites(r)]
            for r in rows[:SHOWN]
        ]
        more = [f"… and {len(rows) - SHOWN} more rows: all with {self.every}"][: len(rows) > SHOWN]
        notes = [f"{r['operator']}: {r['verdict']}: {r['why']}" for r in rows if r["why"] and _bad(r)]
        return "\n".join([self.title(), text_table(head, body), *more, *self.totals(), *dict.fromkeys(notes)])

    def _repr_html_(self) -> str:
        phases = self.phases()
        colour = {
            "CPU fallback": RED,
            "AI CPU": AMBER,
            "slow kernel": AMBER,
            "kernel": GREEN,
        }
        calls = [p or "calls" for p in phases]
        rows = [
            [
                Cell(r["verdict"], f"color:{colour.get(r['verdict'], 'inherit')};{LEFT}", "b"),
                r["operator"],
                *(Cell(str(r["calls"][p] or "-"), "") for p in phases),
                Cell(_sites(r), tag="code"),
                r["why"],
            ]
            for r in self.rows()
        ]
        table = html_table(("verdict", "operator", *calls, "line", "why"), rows, calls)
        return f"<p>{escape(self.title())}</p>{table}<p>{'<br>'.join(map(escape, self.totals()))}</p>"

    def title(self) -> str:
        asked = "" if self.asked == self.torch_npu else f" (nearest table to {self.asked})"
        return (
            f"operators of {self.subject or 'the recorded forward'}; verdicts from the published torch_npu "
            f"{self.torch_npu}{asked} and the rules of CANN {CANN}, not from a device"
        )

    def totals(self) -> list[str]:
        """Lines with launches, syncs, GFLOP and verdicts per phase, then the assumptions."""
        lines = []
        for phase in self.phases():
            words = ", ".join(f"{n} {word}" for word, n in self.verdicts(phase).items())
            lines.append(
                f"{phase or 'total'}: {self.work(phase)}, {self.flops(phase) / 1e9:.1f} GFLOP; {words}"
            )
        return lines + [f"assumed: {text}" for text in self.assumed]

    def to_json(self) -> dict:
        """Plain data: totals, rows, and every kind of call with its module, line, shapes and verdict."""
        return {
            "subject": self.subject,
            "torch_npu": self.torch_npu,
            "asked": self.asked,
            "cann_rules": CANN,
            "device": "none: a static count without times",
            "assumed": list(self.assumed),
            "phases": {
                p: {
                    "launches": self.launches(p),
                    "syncs": self.syncs(p),
                    "flops": self.flops(p),
                    "verdicts": self.verdicts(p),
                }
                for p in self.phases()
            },
            "operators": self.rows(),
            "calls": [{**_call(e.call), "count": e.count, **_words(e.verdict)} for e in self.entries],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Write census.json, census.txt and census.png into `folder`; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "census.json", folder / "census.txt", folder / "census.png"]
        write_json(paths[0], self.to_json())
        paths[1].write_text(f"{self!r}\n", encoding="utf-8")
        self.draw().savefig(paths[2], dpi=120)
        return paths

    def draw(self):
        """A matplotlib Figure with the calls of each operator per phase, coloured and hatched by verdict."""
        return draw(self)


def _call(call: Call) -> dict:
    found = asdict(call)
    del found["part_of"]  # only for judged_by
    return found


def _words(verdict: Verdict) -> dict:
    return {"verdict": verdict.word, "why": verdict.why, "source": verdict.source}


def _when(phase: str) -> int:
    order = ("", "vision", "prefill", "decode")
    return order.index(phase) if phase in order else len(order)


def _bad(row: dict) -> bool:
    return row["verdict"] in ("CPU fallback", "AI CPU", "slow kernel")


def _sites(row: dict) -> str:
    extra = len(row["sites"]) - 1
    return row["sites"][0] + (f" (+{extra})" if extra else "")
