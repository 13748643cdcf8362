"""The error that a dtype alone makes in a whole run: that of a copy of the reference in it, on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn as nn

from ..device.dtypes import dtype_name
from ..device.tolerances import tolerance
from .choices import other_choices, without_tokens
from .judge import HALVES, RUN_FACTOR, Judge, lowered
from .metrics import Closeness, worst
from .trace import Call, traced, where
from .tree import tensors


class WholeRun:
    """Limits for the inputs of blocks and for the output. The copy runs when the first limit is asked for."""

    def __init__(
        self, judge: Judge, run: Callable[[nn.Module], object], names: list[str], dtype: torch.dtype, expected
    ):
        self.judge, self.run, self.names, self.dtype, self.expected = judge, run, names, dtype, expected
        self.notes: list[str] = []
        self._done = False
        self._calls: dict[tuple, Call] = {}
        self._output: object = None

    def limit(self, call: Call | None) -> float:
        """Largest relative error of the inputs of a call in the candidate's run, or of the output (None)."""
        widest = tolerance(self.dtype).network
        peer = self.peer(call)
        if peer is None or peer.problem or not peer.finite:
            return widest
        return min(max(RUN_FACTOR * peer.relative, RUN_FACTOR * torch.finfo(self.dtype).eps / 2), widest)

    def allows(self, call: Call | None, close: Closeness, mine, theirs) -> bool:
        """Whether the inputs of a call, or the output (None), are as close as they have to be.

        Where near ties of a router were decided otherwise, the limit for a whole network holds for the other
        tokens. mine, theirs: what was compared.
        """
        if close.ok(self.limit(call)):
            return True
        ties, n = self.ties
        widest = tolerance(self.dtype).network
        rest = without_tokens(mine, theirs, ties, n, widest) if ties and not close.problem else None
        return bool(ties) and (close.ok(widest) or (rest is not None and rest.ok(widest)))

    @functools.cached_property
    def ties(self) -> tuple[list[int], int]:
        """(tokens for which the candidate's run chooses other experts by near ties, number of tokens)."""
        if self.dtype not in HALVES:
            return [], 0
        theirs, ours = (functools.partial(self.run, m) for m in (self.judge.reference, self.judge.candidate))
        try:
            ties, n = other_choices(theirs, ours, self.dtype)
        except Exception:
            return [], 0
        if ties:
            self.notes.append(f"near ties: {len(ties)} of {n} tokens have other experts in the run")
        return ties, n

    def peer(self, call: Call | None) -> Closeness | None:
        """Closeness of the copy's inputs of a call, or of its output."""
        self._start()
        if call is None:
            return worst(self._output, self.expected) if self._output is not None else None
        came = self._calls.get(call.key)
        return worst((came.args, came.kwargs), (call.args, call.kwargs)) if came is not None else None

    def excuses(self, outcome: Closeness, output) -> bool:
        """Whether the output is as it should be. Texts and integers must be equal.

        If the dtype alone changes them too, near ties decide and the blocks have to speak.
        """
        if (
            any(t.is_floating_point() or t.is_complex() for t in tensors(self.expected))
            and not outcome.problem
        ):
            return self.allows(None, outcome, output, self.expected)
        if outcome.ok(0.0):
            return True
        peer = self.peer(None)
        if peer is None or peer.ok(0.0) or not peer.finite:
            return False
        self.notes.append(
            f"the output differs, and so does that of {dtype_name(self.dtype)} on the CPU ({peer})"
        )
        return True

    def _start(self) -> None:
        base = where(self.judge.reference, self.judge.reference)[1]
        wanted = self.judge.three_way and self.judge.given is None and self.dtype in HALVES
        if self._done or not wanted or self.dtype == base:
            return
        self._done = True
        for buffers in (False, True):
            try:
                copy = lowered(self.judge.reference, self.judge.candidate, self.dtype, buffers)
                with traced(copy, self.names, "outside") as calls:
                    self._output = self.run(copy)
            except Exception:  # this dtype, or so much memory, is not available on the CPU
                continue
            self._calls = {call.key: call for call in calls}
            return
