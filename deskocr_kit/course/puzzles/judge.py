"""Judge an answer. For a wrong one: both sides, the first index where they differ, and a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .puzzle import Case, Puzzle
from .sandbox import forbid
from .text_map import Map, draw, text_map


class Wrong(AssertionError):
    """A wrong answer. `map`, which exists if the answer is a tensor, can be drawn."""

    def __init__(self, text: str, map: Map | None = None):
        super().__init__(text)
        self.map = map


def judge(puzzle: Puzzle, case: Case, function: Callable) -> Any:
    """Try one case: Wrong, or `...` for a blank, or the measured text of a right answer (may be empty)."""
    start = f"FAIL  puzzle {puzzle.name}, case {case.label!r}: "
    with forbid(puzzle.forbidden) as used:
        try:
            ours = case.look(function, *case.args)
        except AssertionError as error:
            return Wrong(start + str(error))
    if ours is ...:
        return ...
    if used:
        return Wrong(start + "; ".join(used))
    text, map = compare(ours, case.expected, case.budget)
    if text:
        return Wrong(start + text, map)
    return case.measured(ours) if case.measured else ""


def compare(ours: Any, expected: Any, budget: float) -> tuple[str, Map | None]:
    """(the fault of `ours`, or ""; its Map). Compares type, shape and dtype of tensors, then the numbers."""
    both = f"\n  yours     {_short(ours)}\n  expected  {_short(expected)}"
    if ours is None:
        return "it returned None; is a `return` missing?" + both, None
    if not isinstance(expected, Tensor):
        same = type(ours) is type(expected) and ours == expected
        return ("" if same else "not equal" + both), None
    if not isinstance(ours, Tensor):
        return f"expected a tensor, got {type(ours).__name__}" + both, None
    ours, expected = ours.detach().cpu(), expected.detach().cpu()
    if ours.shape != expected.shape:
        return "wrong shape" + both, Map(ours, expected, None)
    if ours.dtype != expected.dtype:
        return "wrong dtype" + both, None
    a, b = ours.double(), expected.double()
    differs = ~((a - b).abs() <= budget * b.abs().max().clamp_min(1e-30)) if b.numel() else b.bool()
    if not differs.any():
        return "", None
    first = tuple(differs.nonzero()[0].tolist())
    text = (
        f"{int(differs.sum())} of {differs.numel()} numbers differ, first at {list(first)}\n"
        f"  yours     {a[first]:.6g} in {_short(ours)}\n"
        f"  expected  {b[first]:.6g} in {_short(expected)}"
    )
    return text, Map(ours, expected, differs)


def show(wrong: Wrong) -> None:
    """Show the difference: as a picture in a notebook, as text elsewhere."""
    if wrong.map is None:
        return
    try:
        from IPython import get_ipython
        from IPython.display import Image, display

        in_notebook = hasattr(get_ipython(), "kernel")
    except ImportError:
        in_notebook = False
    if in_notebook:
        display(Image(draw(wrong.map), alt=text_map(wrong.map)))
    else:
        print(text_map(wrong.map))


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) < 200 else text[:200] + " …"


def small(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random numbers for a case, the same each time. The global generator is not used."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
