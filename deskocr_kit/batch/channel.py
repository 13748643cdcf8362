"""A bounded queue between two stages that can be closed (drain it) or aborted (drop what is in it)."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class Closed(Exception):
    """Nothing more comes out of the channel, or nothing may be put into it."""


class Channel:
    """`put` waits while `capacity` items are inside; `get` waits while none is."""

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.items: deque[Any] = deque()
        self.closed = self.aborted = False
        self.changed = threading.Condition()

    def put(self, item: Any) -> None:
        """Raises Closed after `close` or `abort`."""
        with self.changed:
            while len(self.items) >= self.capacity and not self.closed:
                self.changed.wait()
            if self.closed:
                raise Closed
            self.items.append(item)
            self.changed.notify_all()

    def get(self) -> Any:
        """Raises Closed after `abort`, or after `close` once the channel is empty."""
        with self.changed:
            while not self.items and not self.closed:
                self.changed.wait()
            if self.aborted or not self.items:
                raise Closed
            item = self.items.popleft()
            self.changed.notify_all()
            return item

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def abort(self) -> None:
        with self.changed:
            self.closed = self.aborted = True
            self.items.clear()
            self.changed.notify_all()
