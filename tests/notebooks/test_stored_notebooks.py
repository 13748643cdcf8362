"""The stored notebooks are fit for comparison: executed in order, quiet, portable, of one form."""

from __future__ import annotations

import re
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

from deskocr_kit.course.notebooks import parameters_of
from deskocr_kit.course.puzzles.attempts import get
from deskocr_kit.course.puzzles.notebook import exercises
from tests.helpers.stored import MEASURED, NOTEBOOKS, ROOT, SOLUTIONS, code_cells, markdown, read, tags, texts

EVERY = [*NOTEBOOKS, *SOLUTIONS]
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
also_solutions = pytest.mark.parametrize("path", EVERY, ids=lambda p: f"{p.parent.name}/{p.stem}")
MAP = (ROOT / "notebooks" / "README.md").read_text("utf-8")
CARD = ("You will", "You need", "Runs on", "Takes", "Output")
MAGICS = {"%matplotlib inline"}
ELSEWHERE = (
    str(ROOT), str(Path.home()) + "/", tempfile.gettempdir() + "/", "/home/", "/Users/",
    "site-packages",
)  # fmt: skip


def test_there_are_notebooks():
    numbers = [int(path.name[:2]) for path in NOTEBOOKS]
    assert numbers[:10] == list(range(10)) and numbers == sorted(set(numbers))


@also_solutions
def test_executed_top_to_bottom_in_a_fresh_kernel(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), (
        f"deskocr notebooks run {path.relative_to(ROOT)}"
    )
    assert not [key for cell in read(path).cells for key in cell.metadata if key != "tags"]
    assert set(read(path).metadata) <= {"deskocr", "kernelspec", "language_info"}


@also_solutions
def test_outputs_are_quiet_and_portable(path):
    for cell in code_cells(path):
        where = f"cell [{cell.execution_count}]"
        for output in cell.outputs:
            assert output.get("name") != "stderr" and output.output_type != "error", where
            for text in texts(output):
                assert not [word for word in ELSEWHERE if word in text], f"{where}: a path of one machine"


@also_solutions
def test_claims_hold(path):
    said = ""
    for cell in code_cells(path):
        text = "\n".join(text for output in cell.outputs for text in texts(output))
        said += text
        if "shows-fail" not in tags(cell):  # the broken machine of an example may be shown
            assert not re.search(r"\bFAIL\b|Traceback", text), f"cell [{cell.execution_count}]"
    assert "PASS" in said


@by_name
def test_contracts_are_not_measurements(path):
    """Left of ≈ there is no time, and no float with digits that another machine rounds differently."""
    for cell in code_cells(path):
        if "nbval-ignore-output" in tags(cell):
            continue
        for output in cell.outputs:
            plain = output.text if output.output_type == "stream" else output.data.get("text/plain", "")
            found = re.search(r"\d+\.\d{5,}|\b[\d.]+ ?(ms|µs|us)\b", MEASURED.sub("", plain))
            assert not found, f"cell [{cell.execution_count}]: {found[0]!r} stands left of ≈"


@also_solutions
def test_only_magics_that_cannot_fail_silently(path):
    lines = [line.strip() for cell in code_cells(path) for line in cell.source.splitlines()]
    assert not [line for line in lines if re.match(r"[%!]", line) and line not in MAGICS]


@also_solutions
def test_cells_are_short_enough_to_read(path):
    long = [cell.execution_count for cell in code_cells(path) if len(cell.source.splitlines()) > 25]
    assert not long, f"cells {long}: move them to deskocr_kit"


@also_solutions
def test_one_title_and_no_skipped_level(path):
    text = re.sub(r"```.*?```", "", "\n\n".join(markdown(path)), flags=re.S)
    levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@by_name
def test_the_card(path):
    card = read(path).cells[0].source
    assert re.findall(r"^\*\*([^*]+)\*\* \S", card, re.M) == list(CARD)
    assert card.startswith(f"# {path.stem[:2]}. ")
    assert len(re.findall(r"^\*\*.*\\\n", card, re.M)) == len(CARD) - 1, "a line break is a \\ at the end"


@by_name
def test_previous_and_next(path):
    card, at = read(path).cells[0].source, NOTEBOOKS.index(path)
    numbers = {i: int(each.name[:2]) for i, each in enumerate(NOTEBOOKS)}  # a number may be missing
    first, last = at == 0, path == NOTEBOOKS[-1]
    for word, other, absent in (
        ("previous", numbers.get(at - 1, -1), first),
        ("next", numbers.get(at + 1, -1), last),
    ):
        found = re.findall(rf"\b{word}: \[[^\]]+\]\((\d\d)_[^)]+\.ipynb\)", card)
        assert found == ([] if absent and not found else [f"{other:02}"]), word


@also_solutions
def test_links_and_pictures(path):
    text = "\n".join(markdown(path))
    for alt, target in re.findall(r"(?<!\\)!\[([^\]]*)\]\(([^)]+)\)", text):
        assert len(alt) > 20, f"{target}: say in words what the picture shows"
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (path.parent / target).exists(), target


@also_solutions
def test_each_section_opens_with_a_line_of_chinese(path):
    text = "\n\n".join(markdown(path))
    sections = re.findall(r"^## (.+)\n+(.*)", text, re.M)
    assert sections
    assert not [title for title, first in sections if not re.match(r"> 中文：.*[一-鿿]", first)]


@also_solutions
def test_the_verdict_table_is_last(path):
    last = code_cells(path)[-1]
    assert last.source.strip() == "verdicts()"
    assert re.search(r"\d+ claims, all hold$", last.outputs[-1].data["text/plain"])


@by_name
def test_one_cell_of_parameters(path):
    found = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    assert len(found) == 1 and re.search(r"^device\b.*=.*DESKOCR_DEVICE", found[0].source, re.M)
    assigned = {
        name.strip()
        for names in re.findall(r"^([\w, ]+) =", found[0].source, re.M)
        for name in names.split(",")
    }
    assert parameters_of(path) == assigned, "papermill knows `name = value`, one a line"


@by_name
def test_it_ends_with_the_way_to_the_next(path):
    last = read(path).cells[-1]
    found = re.match(r"\*\*Next:\*\* \[[^\]]+\]\(([^)]+)\)", last.source)
    following = NOTEBOOKS[NOTEBOOKS.index(path) + 1 :]
    assert (found and found[1]) == (following[0].name if following else None)


TAKES = re.compile(
    r"^\*\*Takes\*\* (half a minute|a minute|two minutes) and \d GB of memory to run; \d+ minutes to read"
    r"(?:, and (\d+) for the puzzles?)?\.",
    re.M,
)
MINUTES = {"half a minute": "1", "a minute": "1", "two minutes": "2"}


@by_name
def test_the_minutes_of_the_card_are_those_of_the_map_and_of_the_puzzles(path):
    takes = TAKES.search(read(path).cells[0].source)
    assert takes, "state the time to run, to read and for the puzzles"
    row = next(line for line in MAP.splitlines() if f"({path.name})" in line)
    assert row.split(" | ")[-2] == MINUTES[takes[1]], row
    assert int(takes[2] or 0) == sum(get(name).minutes for name in exercises(read(path)))


@by_name
def test_each_puzzle_has_a_heading_and_states_what_it_asks_for(path):
    cells, names = read(path).cells, iter(exercises(read(path)))
    for at, cell in enumerate(cells):
        if "exercise" not in tags(cell):
            continue
        puzzle, before = get(next(names)), cells[at - 1].source
        text = f"Difficulty {puzzle.difficulty} of 5, {puzzle.minutes} minutes, {puzzle.lines} lines."
        assert text in before, f"before {puzzle.name}: {text}"
        headings = re.findall(
            r"^#+ (.+)", "\n".join(c.source for c in cells[:at] if c.cell_type == "markdown"), re.M
        )
        assert headings[-1] == "Your turn", f"{puzzle.name} is below {headings[-1]!r}"
