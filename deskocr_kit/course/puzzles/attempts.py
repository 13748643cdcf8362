"""Look up a puzzle, try a solution, ask for a hint."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from ..check import Verdict, passed
from .judge import Wrong, judge, show
from .puzzle import Open, Puzzle, Text, is_blank

NAMES = (
    "unfold_by_hand", "patchify", "dilation_trap", "scatter_on_a_view", "cumsum_where",
    "windowed_relative_positions", "rotary_half", "top_k_without_sync", "fp16_overflow",
    "launches_of_a_loop", "masked_row_copy", "rms_norm_rows", "tiled_product", "argmax_with_ban",
)  # fmt: skip


def get(name: str) -> Puzzle:
    """The puzzle of this name. Raises ValueError, with the known names, for an unknown name."""
    if name not in NAMES:
        raise ValueError(f"no puzzle named {name!r}; there are {', '.join(NAMES)}")
    return import_module(f".{name}", __package__).PUZZLE


def attempt(name: str, function: Callable) -> Open | Verdict:
    """Try `function` on every case of a puzzle.

    Returns:
        An `Open`, which states how many lines to write, if the body of `function` is blank (`...`, `pass`).
        A `Verdict`, which also joins the notebook's table of verdicts, if every case is right.

    Raises:
        Wrong: an AssertionError, for the first wrong case. It has the result and the expected result, and the
            difference is drawn before. Other exceptions of `function` are not caught.
    """
    puzzle = get(name)
    if is_blank(function):
        return Open(puzzle)
    count, measured = 0, ""
    for case in puzzle.cases():
        outcome = judge(puzzle, case, function)
        if outcome is ...:
            return Open(puzzle)
        if isinstance(outcome, Wrong):
            show(outcome)
            raise outcome
        count, measured = count + 1, outcome or measured
    return passed(f"puzzle {name}", f"{count} cases", measured)


def blank(name: str) -> str:
    """The source of the notebook cell: signature, docstring, empty body, call of `attempt`."""
    return get(name).blank


def hint(name: str) -> Text:
    """A short hint for one puzzle."""
    return Text(get(name).hint)


def solution(name: str) -> Text:
    """The source of one solution. Other solutions pass too."""
    return Text(get(name).source)
