"""One model in several processes: start them, load each one's part, and report an error once.

`deskocr ocr --tensor-parallel 2` starts two processes of itself, as
`torchrun --nproc-per-node 2 -m deskocr_kit ocr --tensor-parallel 2` does. Rank 0 runs the command; the others
compute with it.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from model.limited import ROOT, START
from model.parallel.launch import GRACE, by_torchrun, launch, started

from ..display.table import text_table
from ..reading.ocr_options import OcrOptions
from .terminal import note

if TYPE_CHECKING:
    import torch

    from ..reading.reader import Reader


def start(options: OcrOptions) -> None:
    """Return in a process that takes part in the reading; elsewhere start the processes and exit with theirs.

    Raises ValueError if torchrun started another number of processes.
    """
    asked = "--tensor-parallel" if options.pipeline_parallel == 1 else "--pipeline-parallel"
    size = int(os.environ["WORLD_SIZE"]) if started() else 0
    if options.processes == 1:
        if by_torchrun() and size > 1:
            raise ValueError(
                f"torchrun started {size} processes, and each would read every page. Add {asked} {size}"
            )
    elif not size:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        raise typer.Exit(
            launch(options.processes, [sys.executable, "-c", START, "deskocr_kit", *sys.argv[1:]])
        )
    elif size != options.processes:
        raise ValueError(
            f"{asked} {options.processes}, but {size} processes were started; give torchrun "
            f"--nproc-per-node {options.processes}"
        )


@contextmanager
def reader_of(options: OcrOptions) -> Iterator[Reader]:
    """The Reader of a command. With several processes only rank 0 gets one; the others work and exit."""
    from ..reading.engines.reader import open_reader
    from ..reading.reader import Reader

    if options.processes == 1:
        yield open_reader(options, note)
        return
    from model.parallel import pipeline, tensor
    from model.parallel.group import Processes

    from ..device.selection import is_simulated

    with one_message(options):
        device = device_of_rank(options.device)
        group = Processes(device, "gloo" if is_simulated(device) else None)
        kind = tensor if options.tensor_parallel > 1 else pipeline
        reader = Reader.load(options, device, from_pretrained=functools.partial(kind.load, group=group))
        model = reader.model
        assert isinstance(model, (tensor.TensorParallel, pipeline.PipelineParallel))  # by `kind.load`
        if group.rank == 0:
            note_parts(model)
            if isinstance(model, tensor.TensorParallel):
                model.leading = True
            try:
                yield reader
            finally:
                model.stop()
        else:
            model.follow()
        group.close()
    if group.rank:
        raise typer.Exit


@contextmanager
def one_message(options: OcrOptions) -> Iterator[None]:
    """Report an error of several ranks once, and an error of one rank with its number.

    A rank that only lost another one waits: the launcher ends it when the cause is known. `launch` shows the
    messages of one rank; torchrun shows all, so there the others wait for rank 0 to report the same error.
    """
    several = started() and (options.processes > 1 or by_torchrun())
    rank, size = (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if several else (0, 1)
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        lost = isinstance(error, ConnectionError)  # model.parallel.group.RanksLost
        if lost or (rank and by_torchrun()):
            time.sleep(GRACE)
        if rank == 0 or lost:
            raise
        from ..device.messages import message

        raise ChildProcessError(f"rank {rank} of {size}: {message(error).removeprefix('error: ')}") from error


def device_of_rank(name: str) -> torch.device:
    """The card of this process: rank r of a machine takes card r.

    Raises ValueError if the name has an index, DeviceError if there is no such card.
    """
    from model.parallel.tensor import local_rank

    from ..device.selection import SIMULATED, pick_device, resolve

    name, kind, rest = resolve(name)
    if rest and kind != SIMULATED:
        raise ValueError(f"--device {name}: each process takes its own card; write --device {kind}")
    return pick_device(f"{kind}:{local_rank()}" if kind in ("npu", "cuda") else name, quiet=local_rank() > 0)


def note_parts(model) -> None:
    """Print what each process holds and what is sent."""
    bytes_each = model.dtype.itemsize
    if hasattr(model, "stages"):
        note(text_table(("process", "weights", "MB"), model.stages.rows(bytes_each)))
        note(f"per token {model.config.decoder.width * bytes_each:,} bytes to stage 1, and the token back")
        return
    split = model.split
    head = ("weights", f"in each of {split.ranks} processes", "MB", "MB per process")
    note(text_table(head, split.rows(bytes_each)))
    for line in (split.traffic(bytes_each), *split.kept_whole(), *model.unused()):
        note(line)
