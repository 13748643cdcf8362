"""What reads the pages of a run: --engine. A further engine is a further entry of MAKERS.

Its name and its help text are in `ENGINES` of reading/engines/options.py. A maker returns devices, see
`attempts.Device`; one loop, in a thread of its own, hands pages to each.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..reading.engines.options import ServedOptions
from ..reading.engines.reader import Connection, client_for
from ..reading.options import ReadingOptions
from .devices import LocalDevice, WorkerDevice, load
from .ray_data import RayCluster
from .served import EngineDevice


class UsageError(ValueError):
    """Options that do not belong together."""


@dataclass(frozen=True)
class Places:
    """The options of `deskocr batch` about devices and processes; see its help."""

    devices: str = ""
    one_process: bool = False
    deadline: float = 0
    restart_after: int = 0
    batch_size: int = 1
    say: Callable[[str], object] = print  # gets lines for the user
    workers: int = 0  # of a cluster; 0: one per device


def devices_of(options: ServedOptions, places: Places) -> list[Any]:
    """The devices of a run.

    Raises UsageError for options that do not belong together, and whatever the loading of a Reader in this
    process raises.
    """
    return MAKERS[options.engine](options, places)


def kit(options: ReadingOptions, places: Places) -> list[Any]:
    """The kit's own network, in a process per device or in this one."""
    given = [each.strip() for each in places.devices.split(",") if each.strip()] or [options.device]
    own = options.only(ReadingOptions)
    if places.one_process:
        if len(given) > 1:
            raise UsageError("--one-process reads with one device; leave --devices out")
        return [LocalDevice(load(own, given[0], places.batch_size), own)]
    for each in given:
        replace(own, device=each)  # raises ValueError for an unknown name
    on_cpu = sum(each.lower() == "cpu" for each in given)
    threads = max(1, (os.cpu_count() or 1) // on_cpu) if on_cpu > 1 else 0
    return [
        WorkerDevice(
            partial(load, own, batch=places.batch_size),
            each,
            own,
            deadline=places.deadline or None,
            restart_after=places.restart_after,
            threads=threads,
        )
        for each in given
    ]


def openai(options: ServedOptions, places: Places) -> list[Any]:
    """Connections to one server, as many as requests at a time; see reading/engines."""
    unset = Places()
    for name in ("devices", "one_process", "restart_after", "batch_size"):
        if getattr(places, name) != getattr(unset, name):
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} belongs to the kit's own network; --concurrency sets the requests")
    try:
        client = client_for(options, places.deadline or None, places.say)
    except ValueError as error:
        raise UsageError(str(error)) from error
    connection = Connection(client, options)
    return [EngineDevice(connection, options, k + 1) for k in range(options.concurrency)]


def ray(options: ReadingOptions, places: Places) -> list[Any]:
    """The kit's own network on the devices of a Ray cluster."""
    if places.devices or places.one_process:
        raise UsageError(
            "--engine ray takes the devices of the cluster; leave --devices and --one-process out, "
            "--device says which kind"
        )
    kind, _, rest = options.device.partition(":")
    if rest.isdigit():
        raise UsageError(f"--engine ray: Ray chooses the card; say --device {kind}, not {options.device}")
    own = options.only(ReadingOptions)
    return [
        RayCluster(
            partial(load, own, batch=places.batch_size),
            options.device,
            own,
            workers=places.workers,
            deadline=places.deadline or None,
            restart_after=places.restart_after,
        )
    ]


#: {name of --engine: what makes its devices}
MAKERS: dict[str, Callable[[ServedOptions, Places], list[Any]]] = {
    "kit": kit,
    "openai": openai,
    "ray": ray,
}
