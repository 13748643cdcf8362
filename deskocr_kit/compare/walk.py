"""Record the operators of a run with their results, and which of them made the inputs of each."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from ..opcount.definition import effect_of
from ..opcount.operator_mode import OperatorMode
from ..opcount.recorder import call_site, options_of, passed_over
from .trace import hooked, keep
from .tree import tensors

#: They move or cast values and compute none. Devices and dtypes differ in them, without a fault.
COPIES = frozenset(
    f"aten::{name}"
    for name in (
        "_to_copy",
        "copy_",
        "clone",
        "contiguous",
        "lift_fresh",
        "lift_fresh_copy",
        "detach",
        "alias",
    )
)


@dataclass
class Step:
    """One operator. sources: indices of the steps whose results it uses."""

    operator: str
    options: str
    site: str
    output: object
    raised: str = ""  # the exception that it raised
    sources: frozenset[int] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.operator}({self.options})" if self.options else self.operator


class Walk(OperatorMode):
    """Keeps the steps of what runs inside, except those inside `skipped` modules.

    Operators are the ones that a device has kernels for, so that CPU and NPU have the same names. Views,
    allocations and copies are no steps: the sources of what they return are those of their inputs.
    """

    def __init__(self, skipped=()):
        super().__init__()
        self.steps: list[Step] = []
        self.raised: Step | None = None
        self.output: object = None  # of the run
        self._depth, self._skipped, self._hooks = 0, list(skipped), []
        self._made: dict[int, frozenset[int]] = {}  # memory -> the steps that wrote it
        self._alive: list[Tensor] = []  # so that no memory is used twice

    def record(self, run: Callable[[], object]) -> Walk:
        """Run it. An exception becomes the last step."""
        try:
            with self:
                self.output = run()
        except Exception as error:
            code = Step("raises", "", _raised_at(error), None, _first_line(error))  # no operator did
            self.steps.append(self.raised or code)
        self._alive.clear()
        return self

    def __enter__(self):
        if not self._entered:
            for module in self._skipped:
                self._hooks += hooked(module, lambda *_: self._step(1), lambda *_: self._step(-1))
        return super().__enter__()

    def __exit__(self, *error):
        result = super().__exit__(*error)
        if not self._entered:
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()
        return result

    def _step(self, by: int) -> None:
        self._depth += by

    def answer(self, name: str, function, args: tuple, kwargs: dict):
        try:
            return super().answer(name, function, args, kwargs)
        except Exception as error:
            if self.raised is None:  # the innermost operator that raised, not what called it
                short = function._schema.name
                self.raised = Step(short, options_of(args, kwargs), call_site(), None, _first_line(error))
            raise

    def seen(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        used = list(tensors((args, kwargs)))
        sources = frozenset().union(*(self._made.get(_memory(t), frozenset()) for t in used))
        short = function._schema.name
        if not self._depth and effect_of(function) not in ("view", "alloc") and short not in COPIES:
            step = Step(short, options_of(args, kwargs), call_site(), keep(output), sources=sources)
            self.steps.append(step)
            sources = frozenset({len(self.steps) - 1})
        for t in tensors(output):
            self._made[_memory(t)] = sources
            self._alive.append(t)


def _memory(t: Tensor) -> int:
    """What views of one tensor share."""
    try:
        return t.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # a sparse tensor has none
        return id(t)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _raised_at(error: BaseException) -> str:
    """`folder/file.py:line function` of the innermost frame outside torch and the instruments."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not passed_over(frame.filename):
            return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
    return ""
