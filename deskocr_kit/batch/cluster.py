"""A run on several machines: what is sent to them, and how the main process takes their answers.

    main process                          the machines, see stages.py
    files, rows of the manifest   ->      decode -> read, one worker per device -> write
    manifest, pages.jsonl, counts <-      what became of each page

The main process alone writes the manifest; the machines write the folders of the pages. A page that gets lost
with a machine has no outcome; it is sent again in a further round, as long as rounds bring outcomes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .decode import FileEnd, Kept, Unreadable
from .devices import About
from .faults import CannotContinue
from .lock import holder
from .manifest import Manifest, Stored
from .outcome import Failed, PageWriter, Written
from .records import KIT
from .sources import Source


@dataclass(frozen=True)
class FilePart:
    """A file, and what the manifest knows about it.

    content: see Manifest.content. here: whether the main process sees the file.
    """

    source: Source
    base: str  # name of its first page's folder
    content: tuple[int, int, str, int | None]
    rows: dict[int, Stored]
    here: bool


@dataclass(frozen=True)
class Setup:
    """What a machine needs to know about a run.

    settings: their digest. folder: the working directory, because paths are kept as given. lock: the content
    of the lock file, by which a machine recognises the output folder.
    """

    pages: PageWriter
    settings: str
    batch_size: int
    dpi: float | None
    folder: str
    lock: str
    kit: str = KIT


@dataclass(frozen=True)
class Content:
    """What a file contains, if it is not as the manifest says. It goes before the outcomes of its pages."""

    key: str
    size: int
    changed: int
    sha256: str


@dataclass(frozen=True)
class Found:
    """A page that was complete on the disk and not in the manifest."""

    key: str
    number: int
    row: Stored


@dataclass(frozen=True)
class Credit:
    """A page was read by this worker, which has replaced its process `restarts` times."""

    worker: str
    restarts: int


@dataclass(frozen=True)
class Lost:
    """A worker could not read its pages. They have no outcome."""

    text: str


@dataclass(frozen=True)
class Stop:
    """The run cannot go on. program: an error of this program, with its traceback."""

    text: str
    program: bool = False


@dataclass
class Job:
    """One run. settings: their digest."""

    sources: Sequence[Source]
    manifest: Manifest
    settings: str
    pages: PageWriter
    batch_size: int
    dpi: float | None

    def setup(self) -> Setup:
        lock = holder(self.pages.out)
        return Setup(self.pages, self.settings, self.batch_size, self.dpi, os.getcwd(), lock)

    def part(self, source: Source) -> FilePart:
        key = source.key
        here = os.path.exists(key) if "\0" not in key else False
        return FilePart(
            source, self.manifest.base(key), self.manifest.content(key), self.manifest.pages(key), here
        )


class Cluster(ABC):
    """Reads the pages of a run on its own devices. It stands in the place of the devices of a run."""

    prepares = True
    name = "cluster"

    def __init__(self) -> None:
        self.read_pages: Counter[str] = Counter()  # by worker
        self.replaced: dict[str, int] = {}  # processes that were replaced, by worker

    @property
    def restarts(self) -> int:
        return sum(self.replaced.values())

    @abstractmethod
    def start(self) -> About:
        """Connect, and learn about the readers. Called by the thread that also calls `read_all`."""

    @abstractmethod
    def round(self, setup: Setup, parts: Sequence[FilePart]) -> Iterable[Any]:
        """Read these files; yield the events of stages.Row in any order. Some may be missing."""

    @abstractmethod
    def sample(self) -> tuple[Any, int]:
        """(one attempts.Device of the cluster, the number of workers), for a dry run."""

    def read_all(self, job: Job, take: Callable[[Any], None], note: Callable[[str], None]) -> None:
        """Read all files. take: the main process's writer.

        Raises CannotContinue if a round of reading brings no outcome, or if nothing can be written.
        """
        intake, setup = Intake(job, take, note, self), job.setup()
        while True:
            before = len(intake.taken)
            for event in self.round(setup, [job.part(source) for source in intake.left()]):
                intake.take(event)
            if not intake.left():
                return
            if len(intake.taken) == before:
                raise CannotContinue(intake.lost or "pages were sent to the cluster, and none came back")


@dataclass
class Intake:
    """Takes the events of a cluster: the outcome of each page once, also if it is read twice."""

    job: Job
    write: Callable[[Any], None]
    note: Callable[[str], None]
    cluster: Cluster
    taken: set[tuple[str, int]] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # files whose pages were all sent
    lost: str = ""

    def left(self) -> list[Source]:
        """The files that still have pages without an outcome."""
        pending = self.job.manifest.pending()
        return [
            source
            for source in self.job.sources
            if source.key not in self.ended
            or any(number in source.choice for number in pending.get(source.key, ()))
        ]

    def take(self, event: Any) -> None:
        if isinstance(event, Stop):
            raise RuntimeError(event.text) if event.program else CannotContinue(event.text)
        if isinstance(event, Lost):
            if event.text != self.lost:
                self.note(f"warning: {event.text}; its pages go to the other workers")
            self.lost = event.text
        elif isinstance(event, Credit):
            self.cluster.read_pages[event.worker] += 1
            self.cluster.replaced[event.worker] = event.restarts
        elif isinstance(event, Content):
            self.job.manifest.set_content(event.key, event.size, event.changed, event.sha256)
        elif isinstance(event, Found):
            self.job.manifest.put(event.key, event.number, event.row)
        elif isinstance(event, FileEnd):
            self.ended.add(event.source.key)
            self.write(event)
        elif (page := page_of(event)) not in self.taken:
            self.taken.add(page)
            self.write(event)


def page_of(event: Kept | Unreadable | Written | Failed) -> tuple[str, int]:
    """(key of the file, number) of the page that an outcome is about."""
    return event.key, event.page if isinstance(event, (Kept, Unreadable)) else event.number
