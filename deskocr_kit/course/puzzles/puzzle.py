"""The parts of a puzzle. The blank is cut out of the solution, so the two cannot differ."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

from ...display.palette import BLUE


def run(function: Callable, *args) -> Any:
    """The usual way to try a case: call the function and return its result."""
    return function(*args)


@dataclass(frozen=True)
class Case:
    """One case. `args` belong to it alone; `expected` was computed before the function got them."""

    label: str
    args: tuple
    expected: Any
    look: Callable = run  # look(function, *args) -> the value to compare; may raise AssertionError
    budget: float = 1e-5  # largest allowed difference, relative to the largest expected number
    measured: Callable[[Any], str] | None = None  # the text that the verdict shows right of ≈


@dataclass(frozen=True)
class Puzzle:
    """A header, cases and a solution. Name, signature, blank and number of lines come from the solution."""

    title: str
    chinese: str
    difficulty: int  # 1 … 5
    importance: int  # 1 … 5
    minutes: int
    hint: str
    solution: Callable
    cases: Callable[[], Iterator[Case]]
    forbidden: dict[str, str] = field(default_factory=dict)  # aten operator -> why it may not be used
    decorator: str = ""  # the line above the function in a notebook; a kernel has one

    @property
    def name(self) -> str:
        return self.solution.__name__

    @cached_property
    def source(self) -> str:
        """The solution, as text."""
        above = f"{self.decorator}\n" if self.decorator else ""
        return above + textwrap.dedent(inspect.getsource(self.solution))

    @cached_property
    def _parts(self) -> tuple[str, list[str]]:
        """(signature and docstring, the lines of the body)."""
        function = ast.parse(self.source).body[0]
        assert isinstance(function, ast.FunctionDef)
        lines = self.source.splitlines()
        end_of_head = function.body[0].end_lineno  # the docstring
        return "\n".join(lines[:end_of_head]), [line for line in lines[end_of_head:] if line.strip()]

    @property
    def lines(self) -> int:
        """Number of code lines in the body of the solution."""
        return sum(not line.strip().startswith("#") for line in self._parts[1])

    @property
    def blank(self) -> str:
        head, _ = self._parts
        return (
            f'{head}\n    # your code, {self.lines} lines\n    ...\n\n\nattempt("{self.name}", {self.name})'
        )


@dataclass(frozen=True)
class Open:
    """The result of an attempt whose function is still blank."""

    puzzle: Puzzle

    def __repr__(self) -> str:
        p = self.puzzle
        return (
            f"OPEN  {'puzzle ' + p.name:<28} {p.lines} lines, {p.minutes} minutes, "
            f"difficulty {p.difficulty}/5, importance {p.importance}/5; "
            f'stuck? from deskocr_kit.course import hint, solution; hint("{p.name}"), solution("{p.name}")'
        )

    def _repr_html_(self) -> str:
        left, _, right = repr(self).partition("; ")
        return (
            f'<pre style="white-space:pre-wrap"><b style="color:{BLUE}">{escape(left)}</b>\n'
            f"      {escape(right)}</pre>"
        )


class Text(str):
    """A text that a notebook shows with its line breaks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self)}</pre>"


def _dots(): ...


def _documented():
    """A body that is only a docstring."""


_EMPTY = {_dots.__code__.co_code, _documented.__code__.co_code}


def is_blank(function: Callable) -> bool:
    """Whether the body of a function or kernel does nothing: `...`, `pass`, `return None`."""
    function = getattr(function, "fn", function)  # of a kernel
    code = getattr(function, "__code__", None)
    if code is None or code.co_code not in _EMPTY:
        return False
    return all(each in (None, function.__doc__) for each in code.co_consts)  # not `return 5`
