"""A stand-in for the graphs of a device, on the CPU."""

from __future__ import annotations

import contextlib
import sys
from unittest.mock import Mock

import torch._dynamo  # noqa: F401 (dispatch modes import it; that fails while a test replaces torch.cuda)
from torch.utils._python_dispatch import TorchDispatchMode

from model.fast import DEFAULTS, step
from model.fast.moe import gathered


class Tape(TorchDispatchMode):
    """A graph as on a device: the operators of one run, repeated on the same memory."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, made))
        return made

    def replay(self):
        for function, args, kwargs, before in self.calls:
            returns = function._schema.returns
            if any(r.alias_info is not None for r in returns) and not function._schema.is_mutable:
                continue  # a view of memory that persists
            now = function(*args, **kwargs)
            pairs = zip(now, before, strict=True) if isinstance(now, (tuple, list)) else [(now, before)]
            for new, old in pairs:
                if new is not old:
                    old.copy_(new)


class Device:
    """The functions of torch.cuda and torch.npu for graphs."""

    CUDAGraph, Stream, current_stream = Tape, Mock, Mock
    stream = staticmethod(contextlib.nullcontext)
    graph = staticmethod(lambda tape: tape)


def give_the_cpu_graphs(monkeypatch) -> list[Tape]:
    """The CPU has graphs, and models that are loaded now take the code for other devices.

    Returns the list to which every recorded graph is added.
    """
    tapes: list[Tape] = []

    class Kept(Tape):
        def __init__(self):
            super().__init__()
            tapes.append(self)

    class Host(Device):
        CUDAGraph = Kept

    graphs = sys.modules["deskocr_kit.device.graphs"]
    monkeypatch.setitem(graphs.KINDS, "cpu", "CUDAGraph")
    monkeypatch.setattr(graphs, "backend_of", lambda device: Host)
    monkeypatch.setitem(DEFAULTS, "moe", gathered)
    monkeypatch.setattr(step.Step, "launches_cost", lambda self: True)
    return tapes
