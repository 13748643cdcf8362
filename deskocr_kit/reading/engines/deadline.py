"""A limit on the whole of a request, also while its headers arrive.

httpx has a limit for each read. A server that sends one byte now and then keeps within it for days: the body
is watched by the client (client.py), and the rest here, where bytes come from the network.
"""

from __future__ import annotations

import threading
import time
from typing import Any


class Deadline:
    """The time (monotonic) at which requests of the calling thread end; None: no limit."""

    def __init__(self) -> None:
        self.of_thread = threading.local()

    def set(self, limit: float | None) -> None:
        self.of_thread.limit = limit

    def left(self, timeout: float | None) -> float | None:
        """The shorter one of `timeout` and what is left, in seconds; at least a moment."""
        limit = getattr(self.of_thread, "limit", None)
        if limit is None:
            return timeout
        left = max(0.001, limit - time.monotonic())
        return left if timeout is None else min(timeout, left)


class LimitedStream:
    """A network stream of httpcore whose reads and writes end with the deadline."""

    def __init__(self, stream: Any, deadline: Deadline):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def start_tls(self, ssl_context: Any, server_hostname: Any = None, timeout: float | None = None) -> Any:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return LimitedStream(stream, self._deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LimitedBackend:
    """A network backend of httpcore that opens such streams."""

    def __init__(self, backend: Any, deadline: Deadline):
        self._backend, self._deadline = backend, deadline

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **more: Any) -> Any:
        stream = self._backend.connect_tcp(host, port, self._deadline.left(timeout), **more)
        return LimitedStream(stream, self._deadline)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def limited(transport: Any, deadline: Deadline) -> Any:
    """An httpx.HTTPTransport whose connections end with `deadline`.

    httpx has no argument for the backend of its pool. Raises AttributeError where the pool has another form,
    so that a version of httpx without this limit is noticed.
    """
    pool = transport._pool
    pool._network_backend = LimitedBackend(pool._network_backend, deadline)
    return transport
