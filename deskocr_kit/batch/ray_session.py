"""The connection to a Ray cluster, what it has, and what an actor reserves there.

Ray connects to the cluster that RAY_ADDRESS names, or to the one that runs on this machine. Without either it
starts one here, for the length of the run.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from .faults import CannotContinue

#: What Ray counts of each kind of device, the best first. Ray finds NPUs by /dev/davinci*.
COUNTED = {"npu": "NPU", "cuda": "GPU", "cpu": "CPU"}
BLOCK = 1 << 16  # bytes: a page is larger, so each goes on alone as soon as it is ready
STARTS = 3  # of a Ray on this machine, until it is given up


def connect(workers: int) -> None:
    """Connect to the cluster of RAY_ADDRESS or of this machine, or start one here.

    A Ray that is started here ends with the thread that started it.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # on the terminal; before the import
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    address = os.environ.get("RAY_ADDRESS", "")
    try:
        ray.init(address="auto", **quiet)
        return
    except ConnectionError as error:
        if address:
            raise CannotContinue(
                f"RAY_ADDRESS={address}: no Ray cluster answers there; `ray status` shows whether it runs"
            ) from error
    except RuntimeError as error:  # another version of Ray or Python
        text = " ".join(str(error).split())
        raise CannotContinue(f"the Ray cluster cannot be used: {text}") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
    cpus = max(os.cpu_count() or 1, (workers or 1) + 2)
    for attempt in range(STARTS, 0, -1):  # Ray gives a busy machine 30 s; the next attempt finds warm caches
        try:
            ray.init(address="local", num_cpus=cpus, **quiet)
            return
        except Exception as error:
            ray.shutdown()
            if attempt == 1:
                text = " ".join(str(error).split())
                raise CannotContinue(
                    f"Ray did not start on this machine ({text}); see /tmp/ray/session_latest/logs, or start "
                    "it yourself: ray start --head"
                ) from error


@contextlib.contextmanager
def as_before(number: signal.Signals) -> Iterator[None]:
    """Restore the handler of a signal at the end of a `with` block."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


def machines() -> int:
    """Machines of the cluster."""
    import ray

    return sum(node["Alive"] for node in ray.nodes())


def prepare_context() -> None:
    """The settings of Ray Data for this process."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False  # the run has its own
    context.target_max_block_size = BLOCK
    context.max_errored_blocks = -1  # pages that are lost are sent again, see cluster.py
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def resources(device: str) -> dict[str, Any]:
    """What an actor reserves, as named arguments."""
    counted = COUNTED.get(device.partition(":")[0], "CPU")
    if counted == "CPU":
        return {"num_cpus": 1}
    return {"num_cpus": 1, "num_gpus": 1} if counted == "GPU" else {"num_cpus": 1, "resources": {"NPU": 1}}


def chosen(found: dict[str, float]) -> str:
    """The kind of device for "auto": DESKOCR_DEVICE, else the best that the cluster has."""
    kind, colon, rest = os.environ.get("DESKOCR_DEVICE", "").strip().partition(":")
    wanted = kind if rest.isdigit() else f"{kind}{colon}{rest}"  # Ray chooses the card
    return wanted or next(kind for kind, counted in COUNTED.items() if found.get(counted, 0) or kind == "cpu")


def count_workers(device: str, wanted: int, found: dict[str, float], nodes: int) -> int:
    """The number of actors. Raises CannotContinue if the cluster cannot run as many, with tasks beside."""
    kind = device.partition(":")[0]
    counted = COUNTED.get(kind, "CPU")
    has, cpus = int(found.get(counted, 0)), found.get("CPU", 0)
    listed = ", ".join(f"{int(found.get(each, 0))} {each}" for each in COUNTED.values())
    if not has:
        raise CannotContinue(
            f"the Ray cluster has no {counted} for --device {device}, it has {listed}; choose another one, "
            f"or name devices that Ray does not find: ray start --resources '{{\"{counted}\": 8}}'"
        )
    workers = wanted or (has if counted != "CPU" else nodes)
    if counted != "CPU" and workers > has:
        raise CannotContinue(f"--workers {workers}: the Ray cluster has {listed}; ask for {has} or fewer")
    if workers + 1 > cpus:
        raise CannotContinue(
            f"{workers} workers need {workers + 1} CPUs of the Ray cluster, one of them to decode pages, and "
            f"it has {listed}; ask for fewer with --workers, or name more: ray start --num-cpus"
        )
    return workers
