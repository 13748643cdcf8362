"""When each part of a program works, and how fast it is for each size of its batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...display.palette import INK, SERIES, SERIES_HATCHES
from .drawing import Drawing


@dataclass
class Timeline:
    """The calls of some methods, by name of a row.

    timeline = Timeline()
    with timeline.watch({"prepare": (Preparer, "prepare"), "worker": (device, "read")}):
        …
    """

    rows: list[str] = field(default_factory=list)
    spans: list[tuple[str, float, float]] = field(default_factory=list)  # row, start and end in seconds

    @contextlib.contextmanager
    def watch(self, methods: dict[str, tuple[Any, str]]) -> Iterator[Timeline]:
        """Record the calls of methods of an object or a class, in every thread of this process."""
        self.rows += methods
        with contextlib.ExitStack() as stack:
            for row, (owner, name) in methods.items():
                stack.enter_context(self._watched(row, owner, name))
            yield self

    def calls(self) -> dict[str, int]:
        """{row: number of calls}"""
        return {row: sum(name == row for name, *_ in self.spans) for row in self.rows}

    def seconds(self) -> dict[str, float]:
        """{row: seconds in calls}. Rows may overlap."""
        return {row: sum(end - start for name, start, end in self.spans if name == row) for row in self.rows}

    def drawing(self) -> Drawing:
        """A Gantt chart: a line per row, a bar per call."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.4, 0.8 + 0.38 * len(self.rows)), layout="constrained")
        axis = figure.subplots()
        begin = min((start for _, start, _ in self.spans), default=0.0)
        for y, row in enumerate(self.rows):
            bars = [(start - begin, end - start) for name, start, end in self.spans if name == row]
            color, hatch = SERIES[y % 5], SERIES_HATCHES[y % 5]
            axis.broken_barh(
                bars, (y - 0.35, 0.7), facecolor=color, hatch=hatch, edgecolor="white", linewidth=0.8
            )
        axis.set_yticks(range(len(self.rows)), self.rows)
        axis.set_ylim(len(self.rows) - 0.5, -0.5)
        axis.set_xlabel("seconds since the first call")
        _tidy(axis)
        return Drawing(figure, f"When each part works, one bar per call: {', '.join(self.rows)}.")

    @contextlib.contextmanager
    def _watched(self, row: str, owner: Any, name: str) -> Iterator[None]:
        real, own = getattr(owner, name), name in vars(owner)

        def recorded(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                self.spans.append((row, start, time.perf_counter()))

        setattr(owner, name, recorded)
        try:
            yield
        finally:
            setattr(owner, name, real) if own else delattr(owner, name)


def throughput(sizes: Sequence[int], rates: Sequence[float], unit: str = "pages per second") -> Drawing:
    """Bars: the rate for each batch size, beside what as many single pages would give."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 2.8), layout="constrained")
    axis = figure.subplots()
    places = range(len(sizes))
    axis.bar(places, rates, width=0.6, color=SERIES[1])
    for x, rate in zip(places, rates, strict=True):
        axis.text(x, rate, f"{rate / rates[0]:.2f} x", ha="center", va="bottom", fontsize=9)
    axis.axhline(rates[0], color=INK, linestyle="--", linewidth=0.9)
    axis.set_xticks(places, [str(size) for size in sizes])
    axis.set_ylim(0, 1.18 * max(rates))
    axis.set_xlabel("pages in a batch")
    axis.set_ylabel(unit)
    _tidy(axis)
    batches = ", ".join(map(str, sizes))
    return Drawing(
        figure, f"Bars: {unit} with {batches} pages in a batch; the dashed line is one page at a time."
    )


def _tidy(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(colors=INK)
