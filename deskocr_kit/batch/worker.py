"""The process that owns one device: it loads a Reader once and reads the groups of pages that it is sent.

The main process talks to it through a socket, with pickles: both are this program. It writes no files, so it
may be killed at any time.
"""

from __future__ import annotations

import os
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from ..device import import_torch
from ..device.memory_stats import free_cache
from ..device.messages import message
from .devices import about, read_with
from .faults import facts

PARENT_POLL = 0.5  # seconds


def main(handle: int) -> None:
    """Serve the main process until it closes the socket or ends."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    link = Connection(handle)
    try:
        load, name, options, threads = link.recv()
    except EOFError:
        return
    try:
        if threads:
            import_torch().set_num_threads(threads)
        reader = load(name)
        ready = about(reader, options)
    except Exception as error:
        link.send(("failed", message(error).removeprefix("error: ")))
        return
    link.send(("ready", ready))
    while True:
        try:
            pages, options, guard = link.recv()
        except EOFError:
            return
        full = False
        try:
            answer: tuple[str, Any] = ("readings", read_with(reader, pages, options, guard))
        except Exception as error:
            full, *_ = found = facts(error)
            answer = ("fault", found)
        if full:  # here, where the exception no longer holds the tensors of its frames
            free_cache(reader.model.device)
        link.send(answer)


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: a page that nobody waits for is not read to its end."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL)
    os._exit(1)
