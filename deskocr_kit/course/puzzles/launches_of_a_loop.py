"""Puzzle: count the operators that a call starts, for the loop over experts and the gathered product."""

from __future__ import annotations

from functools import partial

import torch

from ...device.counting import counted
from .judge import small
from .puzzle import Case, Puzzle
from .top_k_without_sync import loop, top_k_without_sync


def launches_of_a_loop(call):
    """Count the operators that call() starts. A view (reshape, slice, .T) starts none.

    torch.utils._python_dispatch.TorchDispatchMode sees every operator that reaches a device.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        launches = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.launches += not func.is_view
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        call()
    return counter.launches


def _counted(function, call):
    """The answer as an int. A bool and a tensor of one number count as ints."""
    count = function(call)
    return count if count is None or count is ... else int(count)


def cases():
    def expected(call):
        with counted(torch.device("cpu")) as seen:
            call()
        return seen.launches

    x = small(4, 6)
    args = (small(6, 5), small(8, 6, 5, seed=1), small(6, 8, seed=2), 2)
    for label, call in (
        ("nothing", lambda: None),
        ("two operators", lambda: x.exp() + 1),
        ("views only", lambda: x[1:].T[0]),
        ("in place", lambda: x.clone().mul_(2).add_(1)),
        ("the experts gathered", partial(top_k_without_sync, *args)),
        ("the experts in a loop", partial(loop, *args)),
    ):
        yield Case(label, (call,), expected(call), look=_counted, measured=_against)


def _against(count: int) -> str:
    return f"{count} launches of the loop"


PUZZLE = Puzzle(
    title="Count the launches",
    chinese="自己写一个计数器：循环调用专家要启动多少个算子？收集之后又是多少？",
    difficulty=4,
    importance=4,
    minutes=20,
    hint="Subclass TorchDispatchMode; its __torch_dispatch__(self, func, types, args=(), kwargs=None) must "
    "call func and return its result. func.is_view is true for operators that start nothing.",
    solution=launches_of_a_loop,
    cases=cases,
)
