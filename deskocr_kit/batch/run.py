"""Read many pages: finished pages are kept, failures are reported, and nothing is read twice.

    read_batch(files, reader, out)      with a Reader that is loaded, in this process
    run(sources, out, devices, …)       with one or more devices, as `deskocr batch` does

A run may be interrupted at any time and started again with the same command. A page counts as done if its
folder was written completely, from a file of the same content, with the same settings.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from model.files import write_json

from ..reading.fingerprint import digest_of
from ..reading.options import PageOptions
from .attempts import BatchSize
from .cache import Cache
from .cluster import Cluster, Job
from .decode import Decoder, Preparer, page_count
from .devices import About, LocalDevice
from .faults import CannotContinue
from .formats import RESERVED, write_formats
from .gallery import FILE as GALLERY
from .gallery import lines_of, write_gallery
from .lock import FolderLock
from .manifest import Manifest
from .outcome import PageWriter
from .pipeline import Pipeline
from .progress import Progress
from .records import KIT, PAGES
from .sources import Choice, Source
from .summary import FILE as SUMMARY
from .summary import Summary
from .writer import Writer

NAMES = (*RESERVED, GALLERY, PAGES, SUMMARY)  # no page's folder may have one of these names


@dataclass(frozen=True)
class Plan:
    """How a run goes; nothing here changes the text of a page.

    batch_size: pages read together. workers: threads that prepare pages. dpi: resolution of PDF pages.
    cache: a folder, see cache.py. formats: names in formats.FORMATS. gallery: write index.html. wait: for
    another run on the same folder. retry_failed: only the pages that failed in earlier runs.
    """

    batch_size: int = 1
    workers: int = 1
    dpi: float | None = None
    cache: Path | None = None
    formats: Sequence[str] = ()
    gallery: bool = False
    wait: bool = False
    retry_failed: bool = False


def read_batch(
    files: Iterable[str | Path],
    reader,
    out: Path,
    *,
    prompt: str = "free",
    target: str | None = None,
    mode: str | None = None,
    max_tokens: int | None = None,
    batch_size: int = 1,
    progress=None,
    options: PageOptions | None = None,
    plan: Plan | None = None,
) -> Summary:
    """Read every page of `files` into folders under `out`; batch_size pages are decoded together.

    A page that cannot be read or written is reported in the summary and does not affect other pages.
    KeyboardInterrupt ends the run and keeps the finished pages. `out` also gets summary.json, and pages.jsonl
    with one line per page. progress: see display/progress.py. options: replace prompt, target, mode and
    max_tokens. plan: replaces batch_size.

    Raises OSError if `out` cannot be created or another run writes to it, ValueError for unknown names.
    """
    options = options or PageOptions(prompt=prompt, target=target, mode=mode, max_tokens=max_tokens)
    named = [Source(str(file)) for file in files]
    unique = list({source.key: source for source in reversed(named)}.values())[::-1]
    if progress is not None and len(named) > len(unique):  # named twice: read once
        progress.update(len(named) - len(unique))
    device = LocalDevice(reader, options)
    return run(unique, out, [device], options, plan or Plan(batch_size=batch_size), Progress(progress))


def run(
    sources: Sequence[Source],
    out: Path,
    devices: Sequence[Any],
    options: PageOptions,
    plan: Plan,
    progress: Progress | None = None,
    on_start: Callable[[About], None] | None = None,
) -> Summary:
    """Read every page of `sources` into `out`.

    devices: LocalDevice or WorkerDevice; one queue feeds them all. Or one cluster.Cluster. on_start is called
    when they are ready. A run that cannot go on (a full disk, no working device) ends with the reason in
    `stopped`; its pages stay pending.

    Raises:
        OSError: `out` cannot be created, or another run writes to it (lock.Locked).
        CannotContinue, ValueError: no device can be started, or they are of different kinds.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    progress = progress or Progress()
    with FolderLock(out, plan.wait):
        manifest = Manifest(out, NAMES)
        try:
            if plan.retry_failed:
                sources = only_failed(sources, manifest)
            about = start(devices, progress)
            if on_start is not None:
                on_start(about)
            return _run(sources, out, devices, options, plan, progress, manifest, about)
        finally:
            for device in devices:
                device.close()
            manifest.close()
            progress.close()


def start(devices: Sequence[Any], progress: Progress) -> About:
    """Start all devices at once; those that fail are left out by the pipeline. Raises if none starts."""
    if isinstance(devices[0], Cluster):
        return devices[0].start()
    pool = ThreadPoolExecutor(len(devices))
    starts = [pool.submit(device.start) for device in devices]
    try:
        wait(starts)
    except BaseException:  # Ctrl-C does not wait for the weights
        for device in devices:
            device.kill()
        raise
    finally:
        pool.shutdown()
    ready = [each.result() for each in starts if each.exception() is None]
    for each in starts:
        if (error := each.exception()) is not None:
            if not ready or not isinstance(error, CannotContinue):
                raise error
            progress.say(f"warning: {error}")
    if any(each.settings != ready[0].settings for each in ready):
        raise ValueError("--devices: devices of different kinds do not give the same text; name equal ones")
    return ready[0]


def only_failed(sources: Sequence[Source], manifest: Manifest) -> list[Source]:
    """The pages that failed in earlier runs: of these sources, or of all if there are none."""
    asked = {source.key: source.choice for source in sources}
    failed = [Source(file, Choice(frozenset(numbers))) for file, numbers in manifest.failed()]
    if not asked:
        return failed
    found = []
    for source in failed:
        if source.key in asked:
            numbers = frozenset(n for n in source.choice.numbers if n in asked[source.key])
            found += [Source(source.file, Choice(numbers))] if numbers else []
    return found


def _run(
    sources: Sequence[Source],
    out: Path,
    devices: Sequence[Any],
    options: PageOptions,
    plan: Plan,
    progress: Progress,
    manifest: Manifest,
    about: About,
) -> Summary:
    summary = Summary(about.settings)
    settings = digest_of(about.settings)
    cache = Cache(plan.cache, about.settings, about.plan, KIT) if plan.cache is not None else None
    pages = PageWriter(out, about, options, cache)
    writer = Writer(pages, manifest, settings, summary, progress)
    begin = time.perf_counter()
    try:
        manifest.register(sources)
        progress.expect(sum(expected(source, manifest, options.password) for source in sources))
        progress.event("start", files=len(sources), pages=progress.total, settings=about.settings)
        if isinstance(devices[0], Cluster):
            job = Job(sources, manifest, settings, pages, plan.batch_size, plan.dpi)
            devices[0].read_all(job, writer.take, progress.say)
        else:
            _read_here(sources, devices, plan, manifest, writer, progress.say)
    except KeyboardInterrupt:
        summary.interrupted = True
    except CannotContinue as error:
        summary.stopped = str(error)
    except sqlite3.Error as error:
        summary.stopped = f"{out}: the manifest cannot be used ({error}); run the same command again"
    summary.seconds = time.perf_counter() - begin
    summary.restarts = sum(device.restarts for device in devices)
    summary.devices = _per_device(devices)
    try:
        finish(out, manifest, writer, plan, summary)
    except (OSError, sqlite3.Error) as error:
        summary.stopped = summary.stopped or f"{out}: {error}; make room and run the same command again"
    progress.event("end", counts=summary.counts(), interrupted=summary.interrupted, stopped=summary.stopped)
    return summary


def _read_here(
    sources: Sequence[Source],
    devices: Sequence[Any],
    plan: Plan,
    manifest: Manifest,
    writer: Writer,
    note: Callable[[str], None],
) -> None:
    """Decode the pages in this process, and read them with its devices."""
    pages = writer.pages
    capacity = 2 * plan.batch_size * len(devices) + plan.workers
    mode = pages.about.mode if devices[0].prepares else None
    prepare, size = Preparer(mode, pages.cache).prepare, BatchSize(plan.batch_size)
    pipeline = Pipeline(prepare, devices, writer.take, size, capacity, plan.workers, note)
    decoder = Decoder(
        pages.out,
        manifest,
        writer.settings,
        pipeline.decoded.put,
        pipeline.written.put,
        plan.dpi,
        pages.options.password,
    )
    pipeline.run(partial(decoder.run, sources))


def expected(source: Source, manifest: Manifest, password: str | None = None) -> int:
    """The number of pages to expect of a file, as far as it is cheap to know."""
    count = manifest.content(source.key)[3]
    if count is None:
        count = page_count(source, password)
    return max(1, manifest.expect(source, count))


def finish(out: Path, manifest: Manifest, writer: Writer, plan: Plan, summary: Summary) -> None:
    """Write everything that covers all pages. Raises OSError if that is impossible."""
    summary.pending = manifest.counts().get("pending", 0)
    writer.refresh()
    write_formats(out, manifest, plan.formats)
    if plan.gallery:
        title = f"{out.name or 'Pages'}: what {writer.pages.about.reader.name} read"
        write_gallery(out, lines_of(manifest), manifest.counts(), title=title)
    write_json(out / SUMMARY, summary.record())


def _per_device(devices: Sequence[Any]) -> dict[str, int]:
    """{device: pages that it read}; equal names get a number."""
    if isinstance(devices[0], Cluster):
        return dict(devices[0].read_pages)
    names = [device.name for device in devices]
    return {
        name if names.count(name) == 1 else f"{name} #{i}": device.read_pages
        for i, (name, device) in enumerate(zip(names, devices, strict=True), 1)
    }
