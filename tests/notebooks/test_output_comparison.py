"""Strict nbval compares the stored outputs: it reports a wrong digit in exactly the cells that have it.

Two tests: every digit of every stored output with the comparison of nbval, without a kernel (quick); and one
digit of each output in a real run (slow, except for the first solution).
"""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbval.plugin import IPyNbCell, get_sanitize_patterns, nocolors

from tests.helpers.stored import MEASURED, NOTEBOOKS, ROOT, SOLUTIONS, code_cells, read, tags, texts

RULES = ROOT / "tests" / "nbval.cfg"


def corrupt(text: str) -> str | None:
    """The text with its first digit left of ≈ (the contract) changed; None without such a digit."""
    spans = [match.span() for match in MEASURED.finditer(text)]
    for digit in re.finditer(r"\d", text):
        if not any(start <= digit.start() < end for start, end in spans):
            return text[: digit.start()] + str((int(digit[0]) + 1) % 10) + text[digit.end() :]
    return None


def corrupt_all(notebook) -> set[int]:
    """Make every stored output with a contract wrong; return the numbers of the changed code cells."""
    hit = set()
    for number, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        for output in [] if "nbval-ignore-output" in tags(cell) else cell.outputs:
            place, key = (output, "text") if output.output_type == "stream" else (output.data, "text/plain")
            if wrong := corrupt(place.get(key, "")):
                place[key] = wrong
                hit.add(number)
    return hit


def same_to_nbval(stored: list, new: list) -> bool:
    """Whether strict nbval accepts `new` outputs as equal to the stored ones."""
    skipped = ("metadata", "image/png", "image/jpeg")  # in our notebooks, see IPyNbFile.setup
    rules = dict(get_sanitize_patterns(RULES.read_text("ascii")))
    cell = SimpleNamespace(
        parent=SimpleNamespace(skip_compare=skipped, sanitize_patterns=rules),
        colors=nocolors,
        format_output_compare=lambda *shown: None,
    )
    cell.sanitize = lambda text: IPyNbCell.sanitize(cell, text)
    return IPyNbCell.compare_outputs(cell, new, stored)


def every_digit_changed(text: str):
    """(the text with one digit changed, whether the digit is left of ≈), digit by digit."""
    spans = [match.span() for match in MEASURED.finditer(text)]
    for digit in re.finditer(r"\d", text):
        at = digit.start()
        left = not any(start <= at < end for start, end in spans)
        yield text[:at] + str((int(digit[0]) + 1) % 10) + text[at + 1 :], left


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_digit_left_of_the_mark_is_compared_and_none_right_of_it(path):
    tried = 0
    for cell in code_cells(path):
        if "nbval-ignore-output" in tags(cell):
            continue
        for number, output in enumerate(cell.outputs):
            stream = output.output_type == "stream"
            for key in ["text"] if stream else [kind for kind in output.data if kind.startswith("text/")]:
                for text, left in every_digit_changed((output if stream else output.data)[key]):
                    new = copy.deepcopy(output)
                    (new if stream else new.data)[key] = text
                    outputs = [*cell.outputs[:number], new, *cell.outputs[number + 1 :]]
                    where = f"cell [{cell.execution_count}], {key}: {text[:200]}"
                    assert same_to_nbval(cell.outputs, outputs) != left, where
                    tried += 1
    assert tried > 10


def link_what_notebooks_read(folder) -> None:
    """Their folders of data, and the folders of the repository that they name as `../…`."""
    (folder / "notebooks").mkdir()
    for each in (ROOT / "notebooks").iterdir():
        if each.is_dir() and not each.name.startswith("."):
            (folder / "notebooks" / each.name).symlink_to(each)
    for name in ("reports", "tests"):
        (folder / name).symlink_to(ROOT / name)


def test_a_copy_finds_every_path_that_a_notebook_reads(tmp_path):
    """Without this a cell of a copy fails because its file is missing, and not because a digit is wrong."""
    link_what_notebooks_read(tmp_path)
    named = {
        path
        for each in [*NOTEBOOKS, *SOLUTIONS]
        for cell in code_cells(each)
        for path in re.findall(r"""["'](\.\./[^"'{]*)""", cell.source)
        if (ROOT / "notebooks" / path).exists()
    }
    assert "../tests/data/traces" in named
    assert not [path for path in sorted(named) if not (tmp_path / "notebooks" / path).exists()]


def failing_cells(notebook, folder) -> tuple[set[int], str]:
    """Strict nbval on a copy, in a separate process."""
    link_what_notebooks_read(folder)
    nbformat.write(notebook, folder / "notebooks" / "copy.ipynb")
    command = [
        sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--rootdir", ".",
        "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
        f"--nbval-sanitize-with={RULES}", "notebooks/copy.ipynb",
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    return {int(n) for n in re.findall(r"^FAILED .*::Cell (\d+)", done.stdout, re.M)}, done.stdout[-3000:]


def quick_first():
    """The first solutions take seconds and are in every run; the others need -m slow."""
    quick = (SOLUTIONS or NOTEBOOKS)[0]
    for path in [*NOTEBOOKS, *SOLUTIONS]:
        marks = [] if path == quick else [pytest.mark.slow]
        yield pytest.param(path, marks=marks, id=f"{path.parent.name}/{path.stem}")


@pytest.mark.parametrize("path", list(quick_first()))
def test_a_wrong_digit_is_noticed_where_it_stands(path, tmp_path):
    notebook = read(path)
    expected = corrupt_all(notebook)
    assert expected, "this notebook promises no number at all"
    found, said = failing_cells(notebook, tmp_path)
    assert found == expected, said


def test_corrupting_leaves_measurements_alone():
    assert corrupt("PASS  a (2, 3)  ≈ 5\nb 7") == "PASS  a (3, 3)  ≈ 5\nb 7"
    assert corrupt("PASS  a  ≈ 5 of 6") is None
    assert corrupt("<b>a  </b><i>≈ 5</i>9") == "<b>a  </b><i>≈ 5</i>0"


def test_each_rule_of_the_sanitizer_is_read():
    text = RULES.read_text("ascii")
    rules = get_sanitize_patterns(text)
    assert len(rules) == len(re.findall(r"^\s*regex\b", text, re.M)) == text.count("replace:") - 1
    assert "≈ 5" not in re.sub(rules[0][0], rules[0][1], "a ≈ 5 b\nc")


@pytest.mark.parametrize("rule", get_sanitize_patterns(RULES.read_text("ascii")))
def test_each_rule_of_the_sanitizer_is_needed(rule):
    said = [
        text
        for path in [*NOTEBOOKS, *SOLUTIONS]
        for cell in code_cells(path)
        if "nbval-ignore-output" not in tags(cell)
        for output in cell.outputs
        for text in texts(output)
    ]
    assert any(re.search(rule[0], text) for text in said), "no stored output needs it: a hole for nothing"
