"""Predict times: work divided by the performance of a chip.

Lower bound of a phase: max(FLOP / peak, bytes / bandwidth), the roofline. Launch-bound estimate: number of
operators x the time that the host needs to start one. A phase takes at least the larger of the two. All times
are ranges, because the published figures of chips are ranges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape

from model.modes import get_mode
from model.official import DEEPSEEK_OCR

from ..device.dtypes import find_dtype
from ..display.table import html_table, text_table
from .chips import Chip, Quantity, find, table
from .roofline import draw
from .work import PLANS, Phase, Work, work_of

NAMED = "PREDICTION, not a measurement"


@dataclass(frozen=True)
class Range:
    """A range of seconds, low <= high."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __str__(self) -> str:
        unit, name = (1e3, "ms") if self.high < 10 else (1, "s")
        low, high = (f"{each * unit:.3g}" for each in (self.low, self.high))
        return f"{low} {name}" if low == high else f"{low}..{high} {name}"


@dataclass(frozen=True)
class Times:
    """Times of a phase.

    bound: the limit of the hardware. launch: the time to start the operators; None: not published.
    """

    bound: Range
    launch: Range | None

    @property
    def expected(self) -> Range:
        """The larger of the two, at each end of the range."""
        if self.launch is None:
            return self.bound
        return Range(max(self.bound.low, self.launch.low), max(self.bound.high, self.launch.high))

    def __add__(self, other: Times) -> Times:
        both = None if self.launch is None or other.launch is None else self.launch + other.launch
        return Times(self.bound + other.bound, both)


def times(phase: Phase, chip: Chip, dtype: str) -> Times:
    """Times of a phase on a chip. Raises ValueError if no peak is published for the dtype."""
    peak = chip.peak.get(dtype)
    if peak is None:
        known = ", ".join(name for name, found in chip.peak.items() if found)
        raise ValueError(f"peak of {chip.name} in {dtype}: not published; published: {known}")
    bound = Range(
        max(phase.flops / peak.high, phase.bytes / chip.bandwidth.high),
        max(phase.flops / peak.low, phase.bytes / chip.bandwidth.low),
    )
    cost = chip.launch
    return Times(bound, Range(phase.launches * cost.low, phase.launches * cost.high) if cost else None)


@dataclass(frozen=True)
class Prediction:
    """The prediction for one page on one chip, for several plans."""

    chip: Chip
    dtype: str
    subject: str
    mode: str
    tokens: int
    works: Sequence[Work]

    def draw(self):
        """A matplotlib Figure: TTFT and TPOT of each plan, and the limit of the hardware."""
        return draw(self)

    def ttft(self, plan: str) -> Times:
        """Time from the request to the first token: vision, then prefill, each with its own limit."""
        vision, prefill = (self.phase(plan, name) for name in ("vision", "prefill"))
        expected = vision.expected + prefill.expected
        total = vision + prefill
        return _Sum(total.bound, total.launch, expected)

    def tpot(self, plan: str) -> Times:
        """Time per further token."""
        return self.phase(plan, "decode")

    def phase(self, plan: str, name: str) -> Times:
        return times(self.work(plan).phases[name], self.chip, self.dtype)

    def work(self, plan: str) -> Work:
        return next(work for work in self.works if work.plan == plan)

    def assumptions(self) -> list[str]:
        """The assumptions of this prediction; part of every output."""
        return [
            f"one page at a time, {self.subject}, {self.dtype}, {self.tokens} generated tokens",
            "each operator of the network is one launch; CANN may start several kernels for one",
            "each phase reads the weights once, and prefill reads every expert; results between operators "
            "stay in a cache",
            "host and device overlap fully: a phase takes the larger of the two times, never their sum",
            "waits for the device, copies over the bus, page decoding and Python are not included, because "
            'their cost is not published; so "original", which waits most, is underestimated most',
            *(
                f"{what}: {_shown(found, unit)}"
                for what, found, unit in (
                    (f"peak {self.dtype}", self.chip.peak.get(self.dtype), (1e12, "TFLOP/s")),
                    ("memory bandwidth", self.chip.bandwidth, (1e9, "GB/s")),
                    ("launch cost", self.chip.launch, (1e-6, "us")),
                )
            ),
        ]

    def published(self) -> list[dict]:
        """Published figures for chips of this family, compared with this prediction.

        The entries "ttft" and "tpot" of a row are "inside", "below" or "above" the range from the lowest
        bound to the highest estimate of all plans, or "not comparable" if the mode or figure is not stated.
        "differs" lists the differences between the published set-up and that of the prediction.
        """
        rows = []
        for row in table()["published"]:
            if not self.chip.name.startswith(row["chip"][:4]):
                continue
            tpot = 1 / row["tokens_per_s"] if row["tokens_per_s"] else None
            same = row["mode"] == self.mode
            places = {
                "ttft": _place(row["ttft_s"], [self.ttft(w.plan) for w in self.works]) if same else None,
                "tpot": _place(tpot, [self.tpot(w.plan) for w in self.works]) if same else None,
            }
            rows.append({**row, "tpot_s": tpot, **{k: v or "not comparable" for k, v in places.items()}})
        return rows

    def rows(self) -> list[list[str]]:
        """Rows of the table with the columns HEAD. Each plan has two: TTFT and TPOT."""
        made = []
        for work in self.works:
            first, token = self.ttft(work.plan), self.tpot(work.plan)
            ahead = [work.phases["vision"], work.phases["prefill"]]
            for name, found, parts in (("TTFT", first, ahead), ("TPOT", token, [work.phases["decode"]])):
                made.append(
                    [
                        work.plan,
                        name,
                        str(sum(part.launches for part in parts)),
                        str(sum(part.syncs for part in parts)),
                        str(found.bound),
                        str(found.launch or "not published"),
                        str(found.expected) if found.launch else f"at least {found.bound}",
                    ]
                )
        return made

    HEAD = ("plan", "what", "launches", "waits", "lower bound", "launch-bound", "predicted")

    def title(self) -> str:
        used = "" if self.chip.name == "cpu" else ": no such device was used"
        return f"{NAMED}{used}. Chip {self.chip.name}, {self.subject}, {self.dtype}, {self.tokens} tokens"

    def __repr__(self) -> str:
        plans = [f"{work.plan}: {PLANS[work.plan][1]}" for work in self.works if work.plan in PLANS]
        return "\n".join(
            [
                self.title(),
                text_table(self.HEAD, self.rows()),
                *plans,
                *(f"assumed: {text}" for text in self.assumptions()),
                *self._others(),
            ]
        )

    def _others(self) -> list[str]:
        return [
            f"published: {row['what']} ({row['mode'] or 'mode not stated'}): "
            f"TTFT {_seconds(row['ttft_s'])} {row['ttft']}, TPOT {_seconds(row['tpot_s'])} {row['tpot']}; "
            f"differs in: {', '.join(row['differs'])}; {row['source']}"
            for row in self.published()
        ]

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(text)}</li>" for text in (*self.assumptions(), *self._others()))
        return (
            f"<p><b>{escape(self.title())}</b></p>{html_table(self.HEAD, self.rows())}"
            f"<p>assumed, and others' figures:</p><ul>{notes}</ul>"
        )

    def to_json(self) -> dict:
        """Plain data, seconds."""
        return {
            "kind": NAMED,
            "chip": asdict(self.chip),
            "dtype": self.dtype,
            "subject": self.subject,
            "mode": self.mode,
            "tokens": self.tokens,
            "plans": {
                work.plan: {
                    "about": PLANS[work.plan][1] if work.plan in PLANS else "",
                    "work": {name: asdict(phase) for name, phase in work.phases.items()},
                    "ttft": _plain(self.ttft(work.plan)),
                    "tpot": _plain(self.tpot(work.plan)),
                }
                for work in self.works
            },
            "assumed": self.assumptions(),
            "published": self.published(),
        }


@dataclass(frozen=True)
class _Sum(Times):
    """Times of two phases, each with its own limit."""

    each: Range

    @property
    def expected(self) -> Range:
        return self.each


def predict(
    chip: str | Chip = "910B2",
    config=None,
    mode: str = "gundam",
    grid: tuple[int, int] = (2, 3),
    tokens: int = 256,
    dtype: str = "fp16",
    subject: str = "official size",
) -> Prediction:
    """Predict TTFT and TPOT of one page on a chip. The dry run that counts the work takes some seconds.

    config: None is the official size.

    Raises:
        ValueError: an unknown chip, or no published peak for the dtype.
    """

    chip = find(chip) if isinstance(chip, str) else chip
    times(Phase(1, 0, 1, 1), chip, dtype)  # before the census
    if tokens < 1:
        raise ValueError(f"tokens={tokens}: expected at least 1")
    works = work_of(config, mode, grid, find_dtype(dtype), tokens)
    crops = get_mode(mode, config.checkpoint if config else DEEPSEEK_OCR).crop_mode
    page = f"{subject}, {mode}" + (f" {grid[0]}x{grid[1]}" if crops else "")
    return Prediction(chip, dtype, page, mode, tokens, works)


def _place(figure: float | None, found: Sequence[Times]) -> str | None:
    if figure is None:
        return None
    low, high = min(each.bound.low for each in found), max(each.expected.high for each in found)
    return "below" if figure < low else "above" if figure > high else "inside"


def _plain(found: Times) -> dict:
    launch = asdict(found.launch) if found.launch else None
    return {"bound": asdict(found.bound), "launch": launch, "predicted": asdict(found.expected)}


def _shown(found: Quantity | None, unit: tuple[float, str]) -> str:
    if found is None:
        return "not published"
    low, high = (f"{each / unit[0]:.4g}" for each in (found.low, found.high))
    figure = low if low == high else f"{low}..{high}"
    return f"{figure} {unit[1]} ({found.confidence}; {found.source})"


def _seconds(value: float | None) -> str:
    return "not stated" if value is None else f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
