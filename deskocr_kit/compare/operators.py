"""Find the first operator whose result differs between two runs of a module."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..opcount.definition import effect_of
from ..opcount.recorder import call_site, options_of, passed_over
from .metrics import place, worst
from .trace import keep


@dataclass(frozen=True)
class OperatorFault:
    """An operator, its line in the candidate's code, and the difference."""

    operator: str
    site: str
    what: str
    token: str = ""


@dataclass
class _Step:
    operator: str
    options: str
    site: str
    output: object
    raised: str = ""  # the exception that it raised


class _Walk(TorchDispatchMode):
    """Keeps every result, except those inside `skipped` modules."""

    def __init__(self, skipped=()):
        super().__init__()
        self.steps: list[_Step] = []
        self._depth, self._skipped, self._hooks = 0, list(skipped), []
        self.raised: _Step | None = None

    def __enter__(self):
        for module in self._skipped:
            self._hooks.append(module.register_forward_pre_hook(lambda *_: self._step(1)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._step(-1), always_call=True))
        return super().__enter__()

    def __exit__(self, *error):
        for hook in self._hooks:
            hook.remove()
        return super().__exit__(*error)

    def _step(self, by: int) -> None:
        self._depth += by

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        try:
            output = function(*args, **(kwargs or {}))
        except Exception as error:
            if self.raised is None:  # the innermost operator that raised, not what called it
                self.raised = _Step(
                    name, options_of(args, kwargs or {}), call_site(), None, _first_line(error)
                )
            raise
        if not self._depth and effect_of(function) not in ("view", "alloc"):
            self.steps.append(_Step(name, options_of(args, kwargs or {}), call_site(), keep(output)))
        return output


def first_operator(
    reference: Callable[[], object], candidate: Callable[[], object], budget: float, skipped=((), ())
) -> OperatorFault | None:
    """The first operator in which `candidate()` differs from `reference()`, or None.

    Both run on equal inputs. If the operators are the same, this is the first with an error above the budget;
    otherwise it is the first that differs by name. skipped: modules (of the reference, of the candidate)
    whose operators do not count.
    """
    runs = []
    for run, passed in zip((reference, candidate), skipped, strict=True):
        with _Walk(passed) as walk:
            try:
                run()
            except Exception as error:
                if run is reference:
                    raise
                code = _Step("raises", "", _raised_at(error), None, _first_line(error))  # no operator did
                walk.steps.append(walk.raised or code)
        runs.append(walk.steps)
    theirs, ours = runs
    for a, b in zip(ours, theirs, strict=False):
        if a.raised:
            return OperatorFault(a.operator, a.site, f"raises {a.raised}")
        if a.operator != b.operator:
            what = f"{_described(a)} instead of the reference's {_described(b)}"
            return OperatorFault(a.operator, a.site, what)
        if a.output is None or not isinstance(a.output, (Tensor, tuple, list)):
            continue
        close = worst(a.output, b.output)
        if not close.ok(budget):
            what = f"{_described(a)} instead of the reference's {_described(b)}"
            what = str(close) if a.options == b.options else what
            shape = tuple(a.output.shape) if isinstance(a.output, Tensor) else ()
            return OperatorFault(a.operator, a.site, what, place(close.first, shape))
    if len(ours) != len(theirs):
        longer = ours if len(ours) > len(theirs) else theirs
        extra, who = (
            longer[min(len(ours), len(theirs))],
            "only the candidate" if longer is ours else "only the reference",
        )
        if extra.raised:
            return OperatorFault(extra.operator, extra.site, f"raises {extra.raised}")
        return OperatorFault(extra.operator, extra.site, f"{who} continues with {_described(extra)}")
    return None


def raising(run: Callable[[], object]) -> OperatorFault | None:
    """The operator that raises in `run()`, or None."""
    with _Walk() as walk, contextlib.suppress(Exception):
        run()
    step = walk.raised
    return OperatorFault(step.operator, step.site, f"raises {step.raised}") if step else None


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _raised_at(error: BaseException) -> str:
    """`folder/file.py:line function` of the innermost frame outside torch and the instruments."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not passed_over(frame.filename):
            return f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
    return ""


def _described(step: _Step) -> str:
    return f"{step.operator}({step.options})" if step.options else step.operator
