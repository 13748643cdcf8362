"""Ranks of a parallel model as threads of one process: the same code, without starting processes."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import torch

from model.parallel.group import Group


class Shared:
    """What the threads exchange."""

    def __init__(self, size: int):
        self.barrier = threading.Barrier(size, timeout=120)
        self.values: list[Any] = [None] * size


class Threads(Group):
    def __init__(self, rank: int, size: int, shared: Shared):
        super().__init__(rank, size)
        self.shared = shared

    def exchange(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        self.shared.values[self.rank] = value
        self.shared.barrier.wait()
        every = list(self.shared.values)
        self.shared.barrier.wait()
        return every

    def _sum(self, x):
        return functools.reduce(torch.add, self.exchange(x))

    def _gather(self, x):
        return self.exchange(x)

    def tell(self, message=None):
        return self.exchange(message)[0]


def run(size: int, work: Callable[[Group], Any]) -> list[Any]:
    """The results of `work(group)` on every rank. Raises the first error that is not a broken barrier."""
    shared, results, errors = Shared(size), [None] * size, []

    def one(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, shared))
        except BaseException as error:
            errors.append(error)
            shared.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda each: isinstance(each, threading.BrokenBarrierError)):
        raise error
    return results
