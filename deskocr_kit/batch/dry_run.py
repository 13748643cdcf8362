"""What a run would do: files, pages, damaged files, and an estimate of time and disk from a sample."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..reading.options import PageOptions
from ..reading.pages import iter_pages
from .cluster import Cluster
from .decode import page_count, special
from .progress import Progress, duration
from .run import Plan, run
from .sources import Choice, Source

SAMPLE = 4  # pages that are read


@dataclass
class Estimate:
    """The outcome of a dry run. seconds, bytes: of the whole run, None if no page could be read."""

    files: int = 0
    pages: int = 0
    damaged: list[str] = field(default_factory=list)
    sample: int = 0  # pages that were read
    seconds: float | None = None
    bytes: int | None = None

    def record(self) -> dict:
        return dict(vars(self))

    def __repr__(self) -> str:
        lines = [
            f"files      {self.files:>6}",
            f"pages      {self.pages:>6}",
            f"damaged    {len(self.damaged):>6}",
        ]
        lines += [f"damaged: {each}" for each in self.damaged]
        if self.seconds is not None and self.bytes is not None:
            lines.append(
                f"estimate, from {self.sample} pages: {duration(self.seconds)} "
                f"({self.seconds / max(1, self.pages):.2f} s per page), {self.bytes / 1e6:.1f} MB of results"
            )
        return "\n".join(lines)


def estimate(sources: Sequence[Source], devices: Sequence[Any], options: PageOptions, plan: Plan) -> Estimate:
    """Look at every file without reading its text, and read SAMPLE pages into a folder that is deleted.

    A file is damaged if its first chosen page cannot be opened. The time is that of the sample, without the
    loading of the weights, on the devices of the run; of a cluster, on one of its workers.
    """
    found = Estimate(files=len(sources))
    good: list[Source] = []
    for source in sources:
        first = _first_page(source, plan, options.password)
        if first is None:
            continue
        number, error = first
        if error:
            found.damaged.append(error)
            found.pages += 1
            continue
        found.pages += max(1, source.choice.among(page_count(source, options.password)))
        good.append(Source(source.file, Choice(frozenset({number}))))
    step = max(1, len(good) // SAMPLE)
    chosen = good[::step][:SAMPLE]
    if chosen:
        share = 1
        if isinstance(devices[0], Cluster):  # the sample needs no folder that machines share
            one, share = devices[0].sample()
            devices = [one]
        with tempfile.TemporaryDirectory(prefix="deskocr-dry-run-") as folder:
            small = replace(plan, cache=None, formats=(), gallery=False, retry_failed=False)
            summary = run(chosen, Path(folder), devices, options, small, Progress())
            size = sum(p.stat().st_size for name in summary.read for p in (Path(folder) / name).rglob("*.*"))
        found.sample = len(summary.read)
        if found.sample:
            whole = found.pages - len(found.damaged)
            found.seconds = round(summary.seconds / found.sample * whole / share, 1)
            found.bytes = round(size / found.sample * whole)
    return found


def _first_page(source: Source, plan: Plan, password: str | None) -> tuple[int, str] | None:
    """(number, reason or "") of the first chosen page; None if no page is chosen."""
    if (what := special(source.file)) is not None:
        return 1, f"{source.file}: {what}, not a regular file"
    how: dict[str, Any] = {"dpi": 36} if plan.dpi is None or plan.dpi > 36 else {"dpi": plan.dpi}
    skip = source.choice.skipped(())
    for page in iter_pages(source.file, collect_errors=True, skip=skip, password=password, **how):
        return page.number, "" if page.error is None else str(page.error)
    return 1, f"{source.file}: has none of the chosen pages"
