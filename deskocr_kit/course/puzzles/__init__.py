"""Puzzles about operators: a blank function to fill in, a checker that shows both sides, a solution.

    from deskocr_kit.course.puzzles import attempt

    def patchify(x, weight, stride):
        ...                           # your code

    attempt("patchify", patchify)     # OPEN while the body is blank, PASS when right; raises when wrong

For help, call `hint("patchify")`, then `solution("patchify")`. Each puzzle has one file. `blank(name)` is
the text of its cell in a notebook.
"""

from .attempts import NAMES, attempt, blank, get, hint, solution
from .judge import Wrong
from .puzzle import Open, Puzzle

__all__ = ["NAMES", "Open", "Puzzle", "Wrong", "attempt", "blank", "get", "hint", "solution"]
