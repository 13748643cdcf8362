"""`--engine ray`: the stages of a run as a pipeline of Ray Data, on the machines of a Ray cluster.

    files -> decode (tasks) -> PageReader (one actor per device) -> write (tasks) -> main process

Ray decides where a stage runs, keeps the queues between them short, and starts an actor again that was lost
with its machine; what it had is read again. Faults of pages and devices stay with the kit (attempts.py): an
actor owns a worker process (devices.WorkerDevice), so one page cannot end the actor.

ray_session.py has the connection to the cluster, and what an actor reserves there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..reading.options import PageOptions
from ..reading.reader import Reader
from .attempts import Item
from .cluster import Cluster, FilePart, Setup
from .devices import About, WorkerDevice
from .faults import CannotContinue
from .ray_session import (
    as_before,
    chosen,
    connect,
    count_workers,
    machines,
    prepare_context,
    resources,
)  # fmt: skip
from .stages import PageReader, Row, decode, stop, write

FILES = 32  # in one task, at most
STAGE_CPUS = 0.5  # of a task that decodes or writes; unequal to an actor's, or Ray would merge the stages
PATIENCE = 60.0  # seconds until a message says what the run waits for
MISSING = (
    '--engine ray needs Ray Data: pip install -e ".[ray]" (wheels exist for Python 3.10 to 3.14 on Linux, '
    "macOS with Apple silicon, and Windows)"
)


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("ray", "pyarrow"))


class RayCluster(Cluster):
    """The workers of a Ray cluster.

    Args:
        load: makes the Reader from the name of a device, see devices.WorkerDevice.
        device: npu, cuda, cpu, npu-sim[:profile], or auto: the best that the cluster has.
        workers: actors, one per device; 0: as many as the cluster has devices, on CPUs one per machine.
        deadline, restart_after: see devices.WorkerDevice.

    Raises CannotContinue without Ray.
    """

    name = "ray"

    def __init__(
        self,
        load: Callable[[str], Reader],
        device: str,
        options: PageOptions,
        *,
        workers: int = 0,
        deadline: float | None = None,
        restart_after: int = 0,
    ):
        super().__init__()
        if not is_installed():
            raise CannotContinue(MISSING)
        self.load, self.device, self.options, self.workers = load, device, options, workers
        self.how = {"deadline": deadline, "restart_after": restart_after}
        self.one: OneActor | None = None
        self.open = contextlib.ExitStack()  # closed: as before `_connect`
        self.connected = False

    def start(self) -> About:
        """Connect, and load the weights once on one device, to learn the settings of the run.

        Raises CannotContinue with the reason.
        """
        self._connect()
        one, _ = self.sample()
        try:
            return one.start()
        finally:
            one.close()

    def sample(self) -> tuple[OneActor, int]:
        self._connect()
        self.one = OneActor(self.load, self.device, self.options, self.how)
        return self.one, self.workers

    def round(self, setup: Setup, parts: Sequence[FilePart]) -> Iterator[Any]:
        import ray.data

        prepare_context()
        arguments: dict[str, Any] = {"setup": setup, "load": self.load, "name": self.device, **self.how}
        if self.device == "cpu":
            arguments["workers_here"] = max(1, -(-self.workers // machines()))
        size = setup.batch_size
        blocks = max(1, min(len(parts), max(len(parts) // FILES, 4 * self.workers)))
        files = ray.data.from_items(
            [{"row": pickle.dumps(part)} for part in parts], override_num_blocks=blocks
        )
        free = ray.cluster_resources().get("CPU", 1) - self.workers
        tasks = {
            "compute": ray.data.TaskPoolStrategy(size=max(1, int(free) // 2)),  # of each of two stages
            "num_cpus": STAGE_CPUS,
        }
        table = {"batch_format": "pyarrow"}
        pages = files.map_batches(decode_tables, fn_args=(setup,), batch_size=FILES, **tasks, **table)
        read = pages.map_batches(
            RayReader,
            fn_constructor_kwargs=arguments,
            compute=ray.data.ActorPoolStrategy(size=self.workers, max_tasks_in_flight_per_actor=2),
            batch_size=size if size == 1 else 2 * size,  # so that pages of one shape find each other
            **resources(self.device),
            **table,
        )
        written = read.map_batches(write_tables, fn_args=(setup,), batch_size=1, **tasks, **table)
        for batch in written.iter_batches(batch_size=None, prefetch_batches=0, **table):
            for row in rows_of(batch):
                yield from row.events

    def close(self) -> None:
        """Leave the cluster; one that this run has started ends."""
        if self.one is not None:
            self.one.close()
        self.open.close()
        self.connected = False

    def kill(self) -> None:
        if self.one is not None:
            self.one.kill()

    def _connect(self) -> None:
        if self.connected:
            return
        self.open.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray prints warnings to stdout
        with as_before(signal.SIGTERM):  # Ray sets a handler of its own, which would end the run half-written
            connect(self.workers)
        import ray

        self.open.callback(ray.shutdown)
        self.connected = True
        found = ray.cluster_resources()
        self.device = self.device if self.device != "auto" else chosen(found)
        self.workers = count_workers(self.device, self.workers, found, machines())


class OneActor:
    """A device of the cluster by itself, with the calls of attempts.Device."""

    prepares = True
    read_pages = restarts = 0

    def __init__(self, load: Callable[[str], Reader], name: str, options: PageOptions, how: dict[str, Any]):
        self.load, self.name, self.options, self.how = load, name, options, how
        self.settings: dict = {}
        self.actor: Any = None

    def start(self) -> About:
        import ray

        self.actor = ray.remote(**resources(self.name))(WorkerDevice).remote(
            self.load, self.name, self.options, **self.how
        )
        about = self._ask("start")
        self.settings = dict(about.reader.settings)
        return about

    def read(self, items: Sequence[Item], guard: dict | None = None) -> list:
        readings = self._ask("read", list(items), guard)
        self.read_pages += len(items) if guard is None else 0
        return readings

    def close(self) -> None:
        """End the actor, and with it the process that has the device."""
        if self.actor is not None:
            import ray

            with contextlib.suppress(Exception):  # it is gone already
                ray.get(self.actor.close.remote(), timeout=10)
            with contextlib.suppress(Exception):
                ray.kill(self.actor)
            self.actor = None

    def kill(self) -> None:
        if self.actor is not None:
            import ray

            with contextlib.suppress(Exception):
                ray.kill(self.actor)

    def _ask(self, call: str, *arguments: Any) -> Any:
        """The answer of the actor. Raises what it raised there, or CannotContinue if it is gone."""
        import ray

        answer = getattr(self.actor, call).remote(*arguments)
        if call == "start" and not ray.wait([answer], timeout=PATIENCE)[0]:
            print(
                f"waiting for Ray to start a worker with {resources(self.name)}, and for its weights; "
                "`ray status` shows what the cluster is doing",
                file=sys.stderr,
            )
        try:
            return ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            text = str(error).strip().splitlines() or [type(error).__name__]
            raise CannotContinue(f"ray: {text[0]}") from error


# ---------------------------------------------------------------------- the stages, called by Ray
class RayReader:
    """PageReader on tables of Arrow, in which Ray hands rows over."""

    def __init__(self, **arguments: Any):
        self.reader = PageReader(**arguments)

    def __call__(self, table: Any) -> Iterator[Any]:
        yield from guarded(lambda: self.reader(rows_of(table)))


def decode_tables(table: Any, setup: Setup) -> Iterator[Any]:
    yield from guarded(lambda: decode(setup, rows_of(table)))


def write_tables(table: Any, setup: Setup) -> Iterator[Any]:
    yield from guarded(lambda: (write(setup, row) for row in rows_of(table)))


def guarded(rows: Callable[[], Iterable[Row]]) -> Iterator[Any]:
    """Tables of one row each. An exception becomes the last row, which ends the run: Ray would drop it."""
    try:
        for row in rows():
            yield table_of(row)
    except Exception as error:
        yield table_of(Row(events=[stop(error)]))


def table_of(row: Row) -> Any:
    """One row as a table. A pickle in a binary column: NumPy would cut bytes at their last zero."""
    import pyarrow

    return pyarrow.table({"row": pyarrow.array([pickle.dumps(row)], pyarrow.large_binary())})


def rows_of(table: Any) -> list:
    return [pickle.loads(each) for each in table["row"].to_pylist()] if table.num_rows else []
