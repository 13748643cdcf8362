"""Find the first operator whose result differs between two runs of a module.

The two sequences of operators are aligned by name, as difflib aligns lines, without copies and casts. A wrong
result at an aligned operator is traced back to what it uses: if that was made by operators that only one run
has, these are the fault, otherwise the operator itself is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .metrics import Closeness, place, worst
from .walk import Step, Walk

WINDOW = 400  # operators that are aligned at once, because the time grows with the square


@dataclass(frozen=True)
class OperatorFault:
    """An operator, its line in the candidate's code, and the difference."""

    operator: str
    site: str
    what: str
    token: str = ""


def first_operator(
    reference: Callable[[], object], candidate: Callable[[], object], budget: float, skipped=((), ())
) -> OperatorFault | None:
    """The first operator in which `candidate()` differs from `reference()`, or None.

    Both run on equal inputs. skipped: modules (of the reference, of the candidate) whose operators do not
    count. Operators that only one of the runs has are no fault as long as the results agree.

    Raises:
        RuntimeError: `reference()` raises.
    """
    theirs = Walk(skipped[0]).record(reference)
    if theirs.steps and theirs.steps[-1].raised:
        raise RuntimeError(f"the reference raises {theirs.steps[-1].raised}")
    return _Comparison(Walk(skipped[1]).record(candidate), theirs, budget).first()


def raising(run: Callable[[], object]) -> OperatorFault | None:
    """The operator that raises in `run()`, or None."""
    step = Walk().record(run).raised
    return OperatorFault(step.operator, step.site, f"raises {step.raised}") if step else None


def alignment(ours: list[str], theirs: list[str]) -> dict[int, int]:
    """{index in `ours`: index in `theirs`} of the names that correspond to each other."""
    pairs, i, j = {}, 0, 0
    while i < len(ours) and j < len(theirs):
        while i < len(ours) and j < len(theirs) and ours[i] == theirs[j]:
            pairs[i], i, j = j, i + 1, j + 1
        a, b = ours[i : i + WINDOW], theirs[j : j + WINDOW]
        found = difflib.SequenceMatcher(None, b, a, autojunk=False).get_matching_blocks()[:-1]
        if not found:
            break
        whole = len(a) == len(ours) - i and len(b) == len(theirs) - j
        for at_b, at_a, size in found:
            pairs.update((i + at_a + k, j + at_b + k) for k in range(size))
        if whole:
            break
        i, j = (end + 1 for end in max(p for p in pairs.items()))
    return pairs


class _Comparison:
    """Two recorded runs side by side."""

    def __init__(self, ours: Walk, theirs: Walk, budget: float):
        self.ours, self.theirs, self.budget = ours.steps, theirs.steps, budget
        self.outputs = worst(ours.output, theirs.output)
        self.pairs = alignment([s.operator for s in self.ours], [s.operator for s in self.theirs])
        self.counterparts = {j: i for i, j in self.pairs.items()}

    def first(self) -> OperatorFault | None:
        for i, j in list(self.pairs.items()):
            close = worst(self.ours[i].output, self.theirs[j].output)
            if not close.ok(self.budget):
                return self._caused(*self._before(i, j), i) or self._wrong(i, j, close)
        if self.ours and self.ours[-1].raised:
            return OperatorFault(self.ours[-1].operator, self.ours[-1].site, f"raises {self.ours[-1].raised}")
        if self.outputs.ok(self.budget) and not self.outputs.empty:
            return None
        extra = [i for i in range(len(self.ours)) if i not in self.pairs]
        lost = [j for j in range(len(self.theirs)) if j not in self.counterparts]
        return self._caused(extra, lost, len(self.ours) - 1)

    def _before(self, i: int, j: int) -> tuple[list[int], list[int]]:
        """The operators that only one run has and that lead to step i of ours and j of theirs.

        Those with equal results are one calculation in other operators: they count as aligned.
        """
        extra, lost = _alone(self.ours, self.pairs, i), _alone(self.theirs, self.counterparts, j)
        for a in extra:
            for b in lost:
                if worst(self.ours[a].output, self.theirs[b].output).ok(self.budget):
                    self.pairs[a], self.counterparts[b] = b, a
        return _alone(self.ours, self.pairs, i), _alone(self.theirs, self.counterparts, j)

    def _wrong(self, i: int, j: int, close: Closeness) -> OperatorFault:
        a, b = self.ours[i], self.theirs[j]
        what = str(close) if a.options == b.options else f"{a} instead of the reference's {b}"
        shape = tuple(a.output.shape) if isinstance(a.output, Tensor) else ()
        return OperatorFault(a.operator, a.site, what, place(close.first, shape))

    def _caused(self, extra: list[int], lost: list[int], at: int) -> OperatorFault | None:
        """The fault of operators that only the candidate (extra) or only the reference (lost) has."""
        if extra and self.ours[extra[0]].raised:
            step = self.ours[extra[0]]
            return OperatorFault(step.operator, step.site, f"raises {step.raised}")
        if extra and lost:
            step = self.ours[extra[0]]
            return OperatorFault(
                step.operator, step.site, f"{step} instead of the reference's {self.theirs[lost[0]]}"
            )
        if extra:
            return OperatorFault(
                self.ours[extra[0]].operator,
                self.ours[extra[0]].site,
                f"only the candidate has {self.ours[extra[0]]}",
            )
        if lost:
            site = self.ours[at].site if self.ours else ""
            step = self.theirs[lost[0]]
            return OperatorFault(step.operator, site, f"only the reference has {step}")
        return None


def _alone(steps: list[Step], aligned: dict[int, int], at: int) -> list[int]:
    """The steps without counterpart whose results reach step `at` through no aligned step."""
    found, todo = set(), list(steps[at].sources)
    while todo:
        i = todo.pop()
        if i not in aligned and i not in found:
            found.add(i)
            todo += steps[i].sources
    return sorted(found)
