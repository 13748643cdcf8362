"""What a run tells while it goes on: a bar or lines on stderr, a log of JSON lines, Prometheus figures."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from model.files import write_atomically

from ..display.printable import printable

EVERY = 30.0  # seconds between two lines where there is no bar
METRICS_EVERY = 5.0  # seconds


class Progress:
    """Counts pages and tokens. bar: see display.progress; without one, a line every EVERY seconds.

    log: a path for one JSON object per event, "-" for stderr. metrics: a path in Prometheus' text format,
    replaced every METRICS_EVERY seconds. total: expected number of pages.
    """

    def __init__(
        self,
        bar: Any = None,
        *,
        log: str | Path | None = None,
        metrics: str | Path | None = None,
        quiet: bool = True,
        every: float = EVERY,
    ):
        self.bar, self.metrics, self.quiet, self.every = bar, metrics, quiet, every
        self.file: TextIO | None = None
        if log is not None:
            self.file = sys.stderr if str(log) == "-" else open(log, "a", encoding="utf-8")  # noqa: SIM115
        self.pages: Counter[str] = Counter()  # by outcome: read, failed, skipped
        self.kinds: Counter[str] = Counter()  # of failures
        self.tokens = self.total = self.restarts = 0
        self.start = self.said = self.wrote = time.monotonic()
        self.lock = threading.Lock()

    def expect(self, total: int) -> None:
        self.total = total
        if self.bar is not None and getattr(self.bar, "total", None) == 0:  # its maker did not know
            self.bar.total = total
            self.bar.refresh()

    def page(self, outcome: str, file: str = "", page: int = 0, tokens: int = 0, **more: Any) -> None:
        """A page has its outcome."""
        with self.lock:
            self.pages[outcome] += 1
            self.tokens += tokens
            if outcome == "failed":
                self.kinds[more["kind"]] += 1
            if outcome != "skipped":
                self._write({"event": outcome, "file": file, "page": page, "tokens": tokens, **more})
            if self.bar is not None:
                self.bar.update(1)
                self.bar.set_postfix_str(self.rates(), refresh=False)
            elif not self.quiet and time.monotonic() - self.said > self.every:
                self.said = time.monotonic()
                print(self.line(), file=sys.stderr)
            if self.metrics is not None and time.monotonic() - self.wrote > METRICS_EVERY:
                self._export()

    def event(self, name: str, **more: Any) -> None:
        """Something that is not a page: a start, a worker that was replaced, the end."""
        with self.lock:
            self.restarts += name == "restart"
            self._write({"event": name, **more})

    def say(self, text: str) -> None:
        """A line for the user. The names in it are made harmless for a terminal."""
        text = printable(text)
        if self.bar is not None:
            self.bar.write(text)
        elif not self.quiet:
            print(text, file=sys.stderr)

    def rates(self) -> str:
        """Pages and tokens per second, and failures by class."""
        seconds = max(time.monotonic() - self.start, 1e-9)
        worked = self.pages["read"] + self.pages["failed"]
        failures = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        rates = f"{worked / seconds:.2f} pages/s, {self.tokens / seconds:.0f} tokens/s"
        return f"{rates}, {self.pages['failed']} failed" + (f" ({failures})" if failures else "")

    def line(self) -> str:
        """The state of the run in one line, with the time left at the present rate."""
        done = sum(self.pages.values())
        worked = done - self.pages["skipped"]
        left = max(0, self.total - done)
        seconds = time.monotonic() - self.start
        rest = f", about {duration(seconds / worked * left)} left" if worked and left else ""
        return f"{done}/{max(self.total, done)} pages, {self.rates()}{rest}"

    def close(self) -> None:
        """Write the figures a last time, and close the log."""
        with self.lock:
            if self.metrics is not None:
                self._export()
            if self.file is not None and self.file is not sys.stderr:
                self.file.close()
            self.file = None

    def _write(self, event: dict) -> None:
        if self.file is not None:
            stamp = {"time": round(time.time(), 3)}
            text = json.dumps(stamp | event, ensure_ascii=False)
            self.file.write(text.encode("utf-8", "replace").decode() + "\n")
            self.file.flush()

    def _export(self) -> None:
        self.wrote = time.monotonic()
        write_atomically(Path(str(self.metrics)), self.exposition().encode())

    def exposition(self) -> str:
        """The figures in the text format of Prometheus."""
        done = sum(self.pages.values())
        figures: list[tuple[str, str, str, list[tuple[str, float]]]] = [
            ("pages_total", "counter", "Pages with an outcome, by outcome.",
             [(f'{{outcome="{name}"}}', self.pages[name]) for name in ("read", "failed", "skipped")]),
            ("failures_total", "counter", "Failed pages, by class.",
             [(f'{{kind="{name}"}}', count) for name, count in sorted(self.kinds.items())]),
            ("tokens_total", "counter", "Tokens that the model wrote.", [("", self.tokens)]),
            ("worker_restarts_total", "counter", "Worker processes replaced.", [("", self.restarts)]),
            ("pages_pending", "gauge", "Pages without an outcome.", [("", max(0, self.total - done))]),
            ("run_seconds", "gauge", "Seconds since the run started.",
             [("", round(time.monotonic() - self.start, 3))]),
        ]  # fmt: skip
        lines = []
        for name, kind, about, values in figures:
            lines += [f"# HELP deskocr_batch_{name} {about}", f"# TYPE deskocr_batch_{name} {kind}"]
            lines += [f"deskocr_batch_{name}{label} {value}" for label, value in values]
        return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
