"""Generates notebooks/solutions/NN_x.ipynb, the solved exercises, from notebooks/NN_x.ipynb."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from .attempts import get

IMPORTS = """\
import torch
import torch.nn.functional as F

from deskocr_kit.course import attempt, verdicts"""
KERNELS = """\
import os

os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton
import triton
import triton.language as tl

from deskocr_kit.course import attempt, verdicts"""


def exercises(notebook) -> list[str]:
    """The puzzles of a notebook, in order. Raises ValueError for an exercise cell without one `attempt`."""
    names = []
    for cell in notebook.cells:
        if "exercise" not in cell.metadata.get("tags", []):
            continue
        found = re.findall(r'attempt\("(\w+)", (\w+)\)', cell.source)
        if len(found) != 1 or found[0][0] != found[0][1]:
            raise ValueError(f'an exercise cell must call attempt("NAME", NAME) once:\n{cell.source}')
        names.append(found[0][0])
    return names


def is_the_blank(name: str, source: str) -> bool:
    """Whether a cell contains the blank of a puzzle, whatever else it contains."""
    blank = ast.dump(ast.parse(get(name).blank).body[0])
    return any(ast.dump(each) == blank for each in ast.parse(source).body)


def write(path: Path) -> Path | None:
    """Write the solutions of one notebook, not executed. Returns None if it has no exercise."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    source = nbformat.read(path, 4)
    names = exercises(source)
    if not names:
        return None
    heading = source.cells[0].source.splitlines()[0].removeprefix("# ")
    cells = [
        new_markdown_cell(
            f"# Solutions: {heading}\n\n> 中文：本页由命令生成，是练习的一种解法；请先自己试一试。\n\n"
            f"Made by `deskocr notebooks solutions` from [{path.stem}](../{path.name}). "
            "Other solutions pass too."
        ),
        new_code_cell(KERNELS if any(get(name).decorator for name in names) else IMPORTS),
    ]
    for name in names:
        puzzle = get(name)
        about = f"## {puzzle.title}\n\n> 中文：{puzzle.chinese}\n\nHint: {puzzle.hint}"
        code = f'{puzzle.source.rstrip()}\n\n\nattempt("{name}", {name})'
        cells += [new_markdown_cell(about), new_code_cell(code)]
    cells += [new_markdown_cell("## Verdict\n\n> 中文：全部通过。"), new_code_cell("verdicts()")]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the same each time it is generated
    needs = source.metadata.get("deskocr", {"needs": []})
    target = path.parent / "solutions" / path.name
    target.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"deskocr": needs}), target)
    return target
