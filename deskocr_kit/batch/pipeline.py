"""The stages of a run and the bounded queues between them.

    files -> [decode] -> decoded -> [prepare, several] -> ready -> [one loop per device] -> written -> [write]

A full queue stops the stage before it, so memory does not grow with the number of pages. Pages of one shape
are grouped, so that a batch needs no padding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .attempts import BatchSize, Item, read_group
from .channel import Channel, Closed
from .faults import CannotContinue

Outcome = Any  # (Item, Reading or Fault), or what decode.Decoder delivers as `known`


class Groups:
    """Takes ready pages from a channel and hands them out in groups of one shape."""

    def __init__(self, ready: Channel, limit: BatchSize):
        self.ready, self.limit = ready, limit
        self.waiting: dict[tuple, list[Item]] = {}  # by shape
        self.lock = threading.Lock()

    def take(self) -> list[Item]:
        """The next group. Raises Closed after the last page.

        A group is smaller than the limit only at the end, or if more shapes wait than two batches hold pages.
        """
        with self.lock:
            while True:
                size = self.limit.size
                fullest = max(self.waiting, key=lambda shape: len(self.waiting[shape]), default=None)
                if fullest is not None:
                    most = len(self.waiting[fullest])
                    held = sum(map(len, self.waiting.values()))
                    if most >= size or held >= 2 * size or (self.ready.closed and not self.ready.items):
                        return self._cut(fullest, size)
                try:
                    item = self.ready.get()
                except Closed:
                    if not self.waiting or self.ready.aborted:
                        raise
                    continue
                self.waiting.setdefault(item.shape, []).append(item)

    def give_back(self, items: Iterable[Item]) -> None:
        """Return the pages of a device that was lost."""
        with self.lock:
            for item in items:
                self.waiting.setdefault(item.shape, []).append(item)

    def _cut(self, shape: tuple, size: int) -> list[Item]:
        group = self.waiting[shape]
        head, rest = group[:size], group[size:]
        if rest:
            self.waiting[shape] = rest
        else:
            del self.waiting[shape]
        return head


@dataclass
class Pipeline:
    """Run the stages to the end.

    prepare: called with each decoded page, in `preparers` threads. devices: each has a loop in a thread; a
    single LocalDevice has it in the calling thread, so that Ctrl-C reaches the model. write: called with
    every outcome, in one thread.
    """

    prepare: Callable[[Item], Any]
    devices: Sequence[Any]
    write: Callable[[Outcome], None]
    limit: BatchSize
    capacity: int
    preparers: int = 1
    note: Callable[[str], None] = print
    given_up: list[Any] = field(default_factory=list)  # devices that could not be started again
    stopped: BaseException | None = None

    def __post_init__(self) -> None:
        self.decoded, self.ready = Channel(self.preparers), Channel(self.capacity)
        self.written = Channel(self.capacity)
        self.groups = Groups(self.ready, self.limit)
        self.lock = threading.Lock()

    def run(self, decode: Callable[[], None]) -> None:
        """decode: puts its pages into `decoded`, and what is known of others into `written`.

        Raises what ended the run early: CannotContinue, KeyboardInterrupt, or an error of this program.

        All outcomes that were ready by then are written first, except after an error of the writer.
        """
        writer = self._thread(self._write)
        decoding = self._thread(decode)
        preparing = [self._thread(self._prepare) for _ in range(self.preparers)]
        closer = self._thread(lambda: self._close_after(decoding, preparing))
        try:
            if len(self.devices) == 1 and not self.devices[0].prepares:
                self._device_loop(self.devices[0])
            else:
                self._all_devices()
            _join(closer)
        except BaseException as error:
            self._stop(error)
        finally:
            for device in self.devices:
                if self.stopped is not None:
                    device.kill()
            self.written.close()
            try:
                _join(writer)
            except KeyboardInterrupt:  # a second Ctrl-C: what waits is not written
                self.written.abort()
                self._stop(KeyboardInterrupt())
        if self.stopped is not None:
            raise self.stopped

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except Closed:
                pass
            except BaseException as error:
                self._stop(error)

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _close_after(self, decoding: threading.Thread, preparing: list[threading.Thread]) -> None:
        decoding.join()
        self.decoded.close()
        for thread in preparing:
            thread.join()
        self.ready.close()

    def _prepare(self) -> None:
        while True:
            found = self.prepare(self.decoded.get())
            if isinstance(found, Item) and found.cached is None:
                self.ready.put(found)
            else:
                self.written.put((found, found.cached) if isinstance(found, Item) else found)

    def _all_devices(self) -> None:
        """A loop per device; again, if a lost device left pages behind after the others had ended."""
        while True:
            good = [device for device in self.devices if device not in self.given_up]
            loops = [self._thread(partial(self._device_loop, device)) for device in good]
            for loop in loops:
                _join(loop)
            if self.stopped is not None or not self.groups.waiting:
                return

    def _device_loop(self, device) -> None:
        try:
            while True:
                group = self.groups.take()
                left = {id(item): item for item in group}
                try:
                    for item, outcome in read_group(device, group, self.limit):
                        if self.stopped is not None and device.prepares:
                            raise Closed  # the fault may be that this run has ended the worker
                        self.written.put((item, outcome))
                        del left[id(item)]
                except CannotContinue as error:
                    self.groups.give_back(left.values())
                    return self._lose(device, error)
        except Closed:
            pass

    def _lose(self, device, error: CannotContinue) -> None:
        """Go on with the other devices; without one, end the run."""
        with self.lock:
            self.given_up.append(device)
            left = len(self.devices) - len(self.given_up)
        if not left or self.stopped is not None:
            raise error
        self.note(f"warning: {error}; the run goes on with {left} of {len(self.devices)} devices")

    def _stop(self, error: BaseException) -> None:
        with self.lock:
            if self.stopped is None:
                self.stopped = error
        self.decoded.abort()
        self.ready.abort()
        for device in self.devices:
            device.kill()

    def _write(self) -> None:
        try:
            while True:
                self.write(self.written.get())
        except Closed:
            return
        except BaseException:
            self.written.abort()
            raise


def _join(thread: threading.Thread) -> None:
    """Wait for a thread; Ctrl-C arrives within a moment on every system."""
    while thread.is_alive():
        thread.join(0.5)
