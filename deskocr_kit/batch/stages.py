"""The stages of a run as they work on any machine of a cluster: rows in, rows out, without shared state.

    decode(setup, parts)          files -> rows with a page each
    PageReader(setup, …)(rows)    one worker: owns a device, in a process that can be replaced
    write(setup, row)             writes the folder of the page; what is left are events for the main process

A stage may be run again for the same rows after a machine was lost. So each of them gives the same results
the second time, and every file is replaced as a whole.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..reading.reader import Reader
from .attempts import BatchSize, Item, read_group
from .channel import Channel, Closed
from .cluster import Content, Credit, FilePart, Found, Lost, Setup, Stop
from .decode import Decoder, FileEnd, Preparer
from .devices import WorkerDevice
from .faults import CannotContinue, Fault
from .lock import holder
from .manifest import Stored, page_folder
from .records import KIT

if TYPE_CHECKING:
    from model.inference import Reading

SHARED = 60.0  # seconds in which a file made by another machine must appear on a shared folder
PAUSE, LONGEST = 10.0, 60.0  # seconds that a worker waits after it lost its device; so it gets fewer pages
INDEX = ("ASCEND_RT_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")  # how a cluster gives a process its card


@dataclass
class Row:
    """A page on its way, and events for the main process. outcome: after it was read."""

    item: Item | None = None
    folder: str = ""  # of the page's results
    outcome: Reading | Fault | None = None
    events: list[Any] = field(default_factory=list)


def stop(error: BaseException) -> Stop:
    """What ends the run, for an exception that no single page explains."""
    if isinstance(error, CannotContinue):
        return Stop(str(error))
    text = traceback.format_exception(type(error), error, error.__traceback__)
    return Stop("".join(text), program=True)


# ---------------------------------------------------------------------- decode
class FileView:
    """Stands for the manifest on another machine; it knows one file. Changes become events."""

    def __init__(self, part: FilePart, emit: Callable[[Any], None]):
        self.part, self.rows, self.emit = part, dict(part.rows), emit

    def content(self, key: str) -> tuple[int, int, str, int | None]:
        return self.part.content

    def set_content(self, key: str, size: int, changed: int, sha256: str) -> None:
        if sha256 != self.part.content[2]:
            self.rows = {number: replace(row, state="pending") for number, row in self.rows.items()}
        self.emit(Content(key, size, changed, sha256))

    def pages(self, key: str) -> dict[int, Stored]:
        return self.rows

    def folder(self, key: str, number: int) -> str:
        row = self.rows.get(number)
        return row.folder if row is not None and row.folder else page_folder(self.part.base, number)

    def put(self, key: str, number: int, row: Stored) -> None:
        self.emit(Found(key, number, row))


def decode(setup: Setup, parts: Iterable[FilePart]) -> Iterator[Row]:
    """Open files and cut their pages into views. Events go with the page before them, where there is one.

    Pages are decoded one after the other: a file of a thousand pages needs the memory of a few.
    """
    found = Channel(1)
    thread = threading.Thread(target=_deliver, args=(setup, parts, found), daemon=True)
    thread.start()
    held, content = Row(), None
    try:
        while True:
            event = found.get()
            if isinstance(event, Content):
                content = event
                continue
            if isinstance(event, Row):  # a page
                if held.item is not None or held.events:
                    yield held
                held = event
            else:
                held.events.append(event)
            if content is not None and content.key == _key(event) and content not in held.events:
                held.events.insert(0, content)
    except Closed:
        if held.item is not None or held.events:
            yield held
    finally:
        found.abort()
        thread.join()


def _key(event: Any) -> str:
    """The key of the file that an event of `_deliver` is about."""
    if isinstance(event, Row):
        return event.item.key if event.item is not None else ""
    return event.source.key if isinstance(event, FileEnd) else getattr(event, "key", "")


def _deliver(setup: Setup, parts: Iterable[FilePart], found: Channel) -> None:
    """Put every page as a Row, and every event, into the channel."""
    with contextlib.suppress(Closed):
        try:
            enter(setup)
            prepare = Preparer(setup.pages.about.mode, setup.pages.cache).prepare
            for part in parts:
                _check_folder(part)
                view = FileView(part, found.put)
                decoder = Decoder(
                    setup.pages.out,
                    view,
                    setup.settings,
                    partial(_put_page, found, prepare, view),
                    found.put,
                    setup.dpi,
                    setup.pages.options.password,
                )
                decoder.deliver(part.source)
        except Closed:
            pass
        except BaseException as error:
            found.put(stop(error))
    found.close()


def _put_page(found: Channel, prepare: Callable[[Item], Any], view: FileView, item: Item) -> None:
    ready = prepare(item)
    found.put(Row(ready, view.folder(item.key, item.page.number)) if isinstance(ready, Item) else ready)


def enter(setup: Setup) -> None:
    """Work in the folder of the main process. Raises CannotContinue unless this machine shares it."""
    here, out = socket.gethostname(), setup.pages.out
    if setup.kit != KIT:
        raise CannotContinue(f"{here} has deskocr-kit {KIT}, the main process {setup.kit}; install the same")
    late = time.monotonic() + SHARED
    while True:  # a network file system shows a new file after a while
        with contextlib.suppress(OSError):  # paths that were given as absolute ones still work
            os.chdir(setup.folder)
        if holder(out) == setup.lock:
            return
        if time.monotonic() > late:
            raise CannotContinue(
                f"{out} on {here} is not the folder that the main process writes to; {_SHARE}"
            )
        time.sleep(0.5)


def _check_folder(part: FilePart) -> None:
    """Raises CannotContinue for a file that the main process sees, in a folder that is not there here."""
    folder = os.path.dirname(part.source.key)
    if part.here and not os.path.isdir(folder):
        raise CannotContinue(f"{folder}: there is no such folder on {socket.gethostname()}; {_SHARE}")


_SHARE = "--out and the pages must be in a folder that all machines of the cluster share, under one name"


# ---------------------------------------------------------------------- read
class PageReader:
    """One worker of a cluster, which owns one device.

    load, name, deadline, restart_after: see devices.WorkerDevice. workers_here: on this machine, which share
    its cores; 0 leaves the number of threads to torch.
    """

    def __init__(
        self,
        setup: Setup,
        load: Callable[[str], Reader],
        name: str,
        deadline: float | None = None,
        restart_after: int = 0,
        workers_here: int = 0,
    ):
        threads = max(1, (os.cpu_count() or 1) // workers_here) if workers_here else 0
        self.device = WorkerDevice(
            load,
            name,
            setup.pages.options,
            deadline=deadline,
            restart_after=restart_after,
            threads=threads,
        )
        self.limit, self.losses, self.name = BatchSize(setup.batch_size), 0, worker_name(name)

    def __call__(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Pages of one shape are read together. Pages from the cache, and rows without a page, pass."""
        groups: dict[tuple, list[Row]] = {}
        for row in rows:
            if row.item is None or row.item.cached is not None:
                yield row
            else:
                groups.setdefault(row.item.shape, []).append(row)
        for group in groups.values():
            yield from self._read({id(row.item): row for row in group if row.item is not None})

    def _read(self, left: dict[int, Row]) -> Iterator[Row]:
        items = [row.item for row in left.values() if row.item is not None]
        try:
            if not self.device.settings:
                self.device.start()
            for item, outcome in read_group(self.device, items, self.limit):
                row = left.pop(id(item))
                item.views = None  # the next stage has no use for them
                by = [Credit(self.name, self.device.restarts)] if not isinstance(outcome, Fault) else []
                yield replace(row, outcome=outcome, events=row.events + by)
            self.losses = 0
        except CannotContinue as error:
            self.losses += 1
            self.device.fruitless = 0  # it is tried again
            passing = [event for row in left.values() for event in row.events]
            yield Row(events=[*passing, Lost(f"{self.name}: {error}")])
            time.sleep(min(PAUSE * self.losses, LONGEST))

    def close(self) -> None:
        self.device.close()


def worker_name(device: str) -> str:
    """A name by which a user finds the device: its kind, machine, and card or process."""
    card = next((value for each in INDEX if (value := os.environ.get(each, "").strip())), "")
    which = f"card {card}" if card and device not in ("cpu",) else f"process {os.getpid()}"
    return f"{device} ({which} of {socket.gethostname()})"


# ---------------------------------------------------------------------- write
def write(setup: Setup, row: Row) -> Row:
    """Write the folder of a page that was read, or has failed."""
    outcome = row.outcome
    if row.item is None or (outcome is None and (outcome := row.item.cached) is None):
        return Row(events=row.events)
    try:
        enter(setup)
        return Row(events=[*row.events, setup.pages.write(row.item, outcome, row.folder)])
    except Exception as error:
        return Row(events=[stop(error)])
