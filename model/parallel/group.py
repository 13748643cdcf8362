"""What the processes of one model say to each other: sums, gathers, messages.

HCCL connects NPUs, NCCL CUDA cards, gloo CPUs. Tensors of another device travel through the memory of the
host with gloo. Messages (the arguments of a job, tokens) always use gloo: a rank that waits for its next job
waits for minutes, and must not occupy its card, nor run into the time limit of collectives.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
TIMEOUT = 600.0  # seconds in one collective; a page of Unlimited-OCR takes minutes, a layer does not
VARIABLE = "DESKOCR_RANKS_TIMEOUT"
IDLE = timedelta(days=7)  # between two jobs
SENDS = 16  # sends under way; the tensor of each is kept


class RanksLost(ConnectionError):
    """Another process of the model has ended or does not answer."""


class Group:
    """The processes that hold one model together; this one is `rank` of `size`.

    `sums`, `gathers` and `sent_bytes` count the collectives of this process and the bytes of their results.
    """

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.sums = self.gathers = self.sent_bytes = 0

    # ------------------------------------------------------------------ collectives
    def sum(self, x: Tensor) -> Tensor:
        """The sum of x over all ranks, on all ranks the same bits. x may be overwritten."""
        self.sums += 1
        self.sent_bytes += x.numel() * x.element_size()
        return self._sum(x.contiguous())

    def gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The tensors of all ranks, joined along a dimension in the order of ranks."""
        self.gathers += 1
        self.sent_bytes += self.size * x.numel() * x.element_size()
        return torch.cat(list(self._gather(x.contiguous())), dim)

    def _sum(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _gather(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    # ------------------------------------------------------------------ messages
    def tell(self, message: Any = None) -> Any:
        """Rank 0 gives a message that all ranks return; anything that can be pickled."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the group."""


class Processes(Group):
    """A group of processes that torch.distributed connects."""

    def __init__(self, device: torch.device, backend: str | None = None, timeout: float | None = None):
        """Join the group that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT).

        `torchrun` and launch.py set these. backend: None takes that of the device. timeout: seconds in one
        collective; None: the variable DESKOCR_RANKS_TIMEOUT, or 600.

        Raises RanksLost if the others do not come.
        """
        super().__init__(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        self.timeout = timeout or float(os.environ.get(VARIABLE, TIMEOUT))
        backend = backend or BACKENDS.get(device.type, "gloo")
        self.staged = backend == "gloo" and device.type != "cpu"
        limit = timedelta(seconds=self.timeout)
        self.kept: list[tuple[Any, Tensor]] = []  # sends under way, and what they send
        self._ask(lambda: dist.init_process_group(backend, timeout=limit))
        self.channel = self._ask(lambda: dist.new_group(backend="gloo", timeout=IDLE))

    def _ask(self, what: Callable[[], Any]) -> Any:
        try:
            return what()
        except RuntimeError as error:  # what every backend raises for a lost peer and for its time limit
            raise RanksLost(
                f"rank {self.rank} of {self.size}: another process of this model has ended, or has not "
                f"answered for {self.timeout:.0f} s ({VARIABLE} is the limit). If it printed a message, that "
                f"is the cause. Here: {str(error).strip().splitlines()[0]}"
            ) from error

    def _sum(self, x: Tensor) -> Tensor:
        there = x.cpu() if self.staged else x
        self._ask(lambda: dist.all_reduce(there))
        return there.to(x.device)

    def _gather(self, x: Tensor) -> list[Tensor]:
        there = x.cpu() if self.staged else x
        parts = [torch.empty_like(there) for _ in range(self.size)]
        self._ask(lambda: dist.all_gather(parts, there))
        return [part.to(x.device) for part in parts]

    def tell(self, message: Any = None) -> Any:
        box = [message]
        self._ask(lambda: dist.broadcast_object_list(box, src=0, group=self.channel))
        return box[0]

    # ------------------------------------------------------------------ from one rank to another
    def send(self, x: Tensor, to: int) -> None:
        """Send a tensor without waiting for its arrival."""
        while len(self.kept) >= SENDS:
            self._ask(self.kept.pop(0)[0].wait)
        on_host = x.device.type == "cpu" or self.staged
        there = x.detach().cpu() if self.staged else x.detach()
        there = there.contiguous()
        self.sent_bytes += there.numel() * there.element_size()
        group = self.channel if on_host else None
        self.kept.append((self._ask(lambda: dist.isend(there, to, group=group)), there))

    def send_object(self, thing: Any, to: int) -> None:
        """Send anything that can be pickled, without waiting for its arrival."""
        data = torch.frombuffer(bytearray(pickle.dumps(thing)), dtype=torch.uint8)
        self.send(torch.tensor([len(data)]), to)
        self.send(data, to)

    def receive_object(self, source: int) -> Any:
        """What `send_object` of another rank of this model sends."""
        size = int(self.receive(torch.empty(1, dtype=torch.long), source))
        return pickle.loads(self.receive(torch.empty(size, dtype=torch.uint8), source).numpy().tobytes())

    def receive(self, like: Tensor, source: int) -> Tensor:
        """A tensor that another rank sends, with the shape, dtype and device of `like`."""
        on_host = like.device.type == "cpu" or self.staged
        there = torch.empty_like(like, device="cpu" if on_host else like.device)
        self._ask(lambda: dist.recv(there, source, group=self.channel if on_host else None))
        return there.to(like.device)

    def close(self) -> None:
        dist.destroy_process_group()
