"""`deskocr notebooks`: copies for a report, solutions."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.course.notebooks import execute, execute_copy, lacking, to_html
from deskocr_kit.course.puzzles.attempts import NAMES
from deskocr_kit.course.puzzles.notebook import exercises, is_the_blank, write
from tests.helpers.stored import NOTEBOOKS, SOLUTIONS, read, tags

PARAMETERS = 'import os\n\ndevice = os.environ.get("DESKOCR_DEVICE", "cpu")\npages = 2'


def small_notebook(folder, code="print(device, os.environ['DESKOCR_DEVICE'])"):
    cells = [
        new_markdown_cell("# 00 · Small\n\nnext: [01](01_b.ipynb)\n\n![picture of nothing at all](dot.png)"),
        new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        new_code_cell(code),
    ]
    folder.mkdir()
    from PIL import Image

    Image.new("L", (2, 2)).save(folder / "dot.png")
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=spec), folder / "00_small.ipynb")
    return folder / "00_small.ipynb"


def test_a_copy_is_run_with_the_device_and_the_stored_one_stays(tmp_path):
    stored = small_notebook(tmp_path / "notebooks")
    before, out = stored.read_bytes(), tmp_path / "reports"
    copy, page = execute_copy(stored, out, {"device": "npu-sim"})
    assert stored.read_bytes() == before and {copy.parent, page.parent} == {out}
    cells = read(copy).cells
    assert "npu-sim" in cells[1].source and "simulated" in cells[1].source
    assert any("injected-parameters" in tags(cell) for cell in cells)
    assert cells[-1].outputs[0].text == "npu-sim npu-sim\n"
    html = page.read_text(encoding="utf-8")
    assert "npu-sim npu-sim" in html and 'href="01_b.html"' in html and "data:image/png" in html
    assert not re.search(r"""<script|(src|@import)\s*[=(]?\s*["']?https?:|<link[^>]+https?:""", html)


def test_a_failing_copy_is_written_and_the_command_says_so(tmp_path, monkeypatch):
    stored = small_notebook(tmp_path / "notebooks", "print('so far')\nassert device == 'moon'")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["notebooks", "run", "--device", "cpu", "--out", "out"])
    assert isinstance(done.exception, RuntimeError) and "1 of 1" in str(done.exception)
    assert "so far" in (tmp_path / "out" / "00_small.html").read_text(encoding="utf-8")
    assert not read(stored).cells[-1].outputs


def test_an_option_reaches_the_notebooks_that_have_it(tmp_path, monkeypatch):
    stored = small_notebook(tmp_path / "notebooks", "print(pages)")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    command = ["notebooks", "run", "--device", "cpu", "--out", "out", "--checkpoint", "x", "--pages", "mine"]
    done = CliRunner().invoke(app, command)
    assert done.exception is None, done.output  # it has no checkpoint, so the option does not apply
    assert read(tmp_path / "out" / stored.name).cells[-1].outputs[0].text.strip() == str(tmp_path / "mine")
    done = CliRunner().invoke(app, ["notebooks", "run", "--checkpoint", "x"])
    assert "need --out" in str(done.exception)


def test_a_notebook_whose_package_is_absent_is_left_out_and_named(tmp_path, monkeypatch):
    stored = small_notebook(tmp_path / "notebooks")
    notebook = read(stored)
    notebook.metadata["deskocr"] = {"needs": ["triton"]}
    nbformat.write(notebook, stored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deskocr_kit.course.notebooks.has_triton", lambda: False)
    done = CliRunner().invoke(app, ["notebooks", "run"])
    assert done.exception is None, done.output
    assert "left out notebooks/00_small.ipynb: it needs triton" in done.output
    assert read(stored).cells[-1].execution_count is None
    assert lacking(stored) == ["triton"]


def test_what_cannot_be_is_refused(tmp_path, monkeypatch):
    stored = small_notebook(tmp_path / "notebooks")
    with pytest.raises(ValueError, match="no parameter pagse; it has device, pages"):
        execute_copy(stored, tmp_path / "out", {"pagse": "3"})
    with pytest.raises(ValueError, match="contains the stored notebooks"):
        execute_copy(stored, stored.parent, {"device": "cpu"})
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["notebooks", "run", "--device", "cpu"])
    assert "need --out" in str(done.exception)


def test_a_page_holds_no_script_of_an_output(tmp_path):
    stored = small_notebook(tmp_path / "notebooks")
    notebook = read(stored)
    notebook.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", {"text/html": "<b>x</b><script>alert(1)</script>"})
    ]
    nbformat.write(notebook, stored)
    assert "alert(1)" not in to_html(stored) and "<b>x</b>" in to_html(stored)


def test_a_folder_that_cannot_be_written_is_said_before_anything_runs(tmp_path, monkeypatch):
    stored = small_notebook(tmp_path / "notebooks", "1 / 0")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="--out FOLDER"):
        execute(stored)


def test_stored_again_it_is_the_same_file(tmp_path):
    stored = small_notebook(tmp_path / "notebooks", "print(sorted({'b', 'a'}))")
    execute(stored)
    first = stored.read_bytes()
    assert {path.name for path in stored.parent.iterdir()} == {stored.name, "dot.png"}
    execute(stored)
    assert stored.read_bytes() == first


WITH_EXERCISES = [path for path in NOTEBOOKS if exercises(read(path))]


@pytest.mark.parametrize("path", WITH_EXERCISES, ids=lambda p: p.stem)
def test_exercises_are_the_blanks_and_their_solutions_are_current(path, tmp_path):
    cells = [cell for cell in read(path).cells if "exercise" in tags(cell)]
    for name, cell in zip(exercises(read(path)), cells, strict=True):
        assert is_the_blank(name, cell.source), f"{name}: print(deskocr_kit.course.puzzles.blank({name!r}))"
        assert "OPEN" in str(cell.outputs)
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    fresh = [(cell.cell_type, cell.id, cell.source) for cell in read(write(copy)).cells]
    stored = read(path.parent / "solutions" / path.name).cells
    assert [(cell.cell_type, cell.id, cell.source) for cell in stored] == fresh, "deskocr notebooks solutions"


def test_every_puzzle_stands_in_one_notebook_and_no_solution_is_left_over():
    found = [name for path in NOTEBOOKS for name in exercises(read(path))]
    assert sorted(found) == sorted(NAMES)
    assert [path.name for path in SOLUTIONS] == [path.name for path in WITH_EXERCISES]
