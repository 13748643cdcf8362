"""Commands on hostile input: one line and the documented exit status, and the other pages are read."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from deskocr_kit.batch.run import read_batch
from deskocr_kit.benchmark.compare import load_benchmark
from deskocr_kit.benchmark.spec import BenchSpec
from deskocr_kit.cli import app
from deskocr_kit.commands.terminal import show
from deskocr_kit.operators.plan import Plan, PlanError
from deskocr_kit.reading.options import ReadingOptions
from deskocr_kit.reading.page_record import output_folder
from deskocr_kit.reading.pages import Page
from tests.helpers.hostile_files import fifo
from tests.helpers.hostile_text import TEXTS, box
from tests.helpers.image_files import JPEG
from tests.helpers.paths import ROOT
from tests.helpers.pdf_files import make_encrypted_pdf
from tests.helpers.text_reader import text_reader

FIGURE = box("image", "[[0, 0, 500, 500]]")
ERRORS = [ValueError("odd"), MemoryError(), RecursionError("too deep"), OverflowError("large"), KeyError("x")]


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.jpg").write_bytes(JPEG)
    return folder


@pytest.fixture
def says(monkeypatch, tmp_path):
    """says(*texts): what the pages say, one after the other, from now on."""

    def prepare(*texts):
        reader = text_reader(tmp_path / "weights", *texts)
        reader.folder.mkdir(exist_ok=True)
        monkeypatch.setattr("deskocr_kit.reading.reader.Reader.load", lambda *a, **k: reader)
        return reader

    return prepare


@pytest.fixture
def in_time():
    """A test that hangs fails after a minute."""
    if sys.platform == "win32":
        pytest.skip("no FIFO")
    signal.alarm(60)
    yield
    signal.alarm(0)


def run(*words, code=0):
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output + repr(done.exception)
    assert "Traceback" not in done.output
    return done


# ------------------------------------------------------------------ one page does not end a run
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_exception_of_a_page_fails_that_page_only(error, scans, says, tmp_path):
    says("one", error, "three")
    done = run("ocr", scans, "--json", code=1)
    first, second, third = json.loads(done.stdout)
    assert (first["text"], third["text"]) == ("one", "three")
    assert "b.jpg" in second["error"] and "text" not in second
    assert "1 of 3 pages failed" in done.stderr
    # A page that fails is tried once more, alone.
    summary = read_batch(sorted(scans.iterdir()), says("one", error, error, "three"), tmp_path / "out")
    assert summary.read == ["a", "c"] and "b.jpg" in summary.failed[0]["error"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_exception_while_a_page_is_stored_fails_that_page_only(error, scans, says, tmp_path, monkeypatch):
    def fails(table):
        raise error

    text = "<table><tr><td>x</table>"
    monkeypatch.setattr("model.results.to_csv", fails)
    done = run("ocr", scans, "--out", tmp_path / "o", code=1) if says("one", text, "three") else None
    assert "2 of 3" not in done.stderr and "1 of 3 pages failed" in done.stderr
    summary = read_batch(sorted(scans.iterdir()), says("one", text, "three"), tmp_path / "out")
    assert summary.read == ["a", "c"] and "b.jpg" in summary.failed[0]["error"]


def test_an_error_of_the_device_is_explained_once(scans, says):
    lost = RuntimeError("call aclnnAdd failed, error code is 507035\nand more")
    says(lost, lost, "three")
    done = run("ocr", scans, "--json", code=1)
    assert done.stderr.count("remedy:") == done.stderr.count("cause:") > 0
    assert done.stderr.count("a.jpg page 1: RuntimeError: call aclnnAdd failed, error code is 507035\n") == 1
    assert [record.get("text") for record in json.loads(done.stdout)] == [None, None, "three"]
    assert all("\n" not in record.get("error", "") for record in json.loads(done.stdout))


def test_a_full_disk_leaves_a_list_of_failures(scans, says, tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    says("text")
    monkeypatch.setattr("model.results.write_atomically", full)
    monkeypatch.setattr("model.files.write_atomically", full)
    done = run("ocr", scans, "--out", tmp_path / "o", code=1)
    assert done.stdout.count("text") == 3, "the texts are shown all the same"
    assert done.stderr.count("No space left on device") == 3 and "3 of 3 pages failed" in done.stderr
    done = run("batch", scans, "--out", tmp_path / "p", "--one-process", code=1)
    assert "No space left on device" in done.stdout and "make room" in done.stdout, done.stdout
    assert "pending         3" in done.stdout, "no page is lost: the next run reads them"


def test_the_entity_that_ended_a_batch_is_a_page_like_others(scans, says, tmp_path):
    text = "<table><tr><td>&#" + "9" * 5000
    summary = read_batch(sorted(scans.iterdir()), says(text), tmp_path / "out")
    assert summary.read == ["a", "b", "c"] and summary.failed == []


# ------------------------------------------------------------------ the terminal
CONTROLS = "a\x1b[2J\x1b]0;title\x07b\x9b31m\u202ec\x7f"


def test_control_characters_of_a_page_do_not_reach_the_terminal(scans, says):
    says(CONTROLS)
    for words in (
        ["ocr", scans / "a.jpg"],
        ["ocr", scans / "a.jpg", "--stream"],
        ["ocr", scans / "a.jpg", "--json"],
    ):
        done = run(*words)
        assert not set(done.output) & set("\x1b\x07\x9b\u202e\x7f"), words
    assert json.loads(done.stdout)[0]["text"] == CONTROLS, "JSON keeps the text"


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_control_characters_of_file_names_do_not_reach_the_terminal(scans, says, tmp_path):
    says("fine")
    bad = tmp_path / "x\x1b[31m\n\u202e.png"
    bad.write_bytes(b"nothing")
    (tmp_path / "y\x1b[31m.jpg").write_bytes(JPEG)
    for words in (["ocr"], ["batch", "--out", tmp_path / "o"]):
        done = run(words[0], bad, tmp_path / "y\x1b[31m.jpg", scans / "a.jpg", *words[1:], code=1)
        assert "\x1b" not in done.output and "\u202e" not in done.output


def test_a_line_of_100_kb_is_cut_on_a_terminal_and_whole_in_a_file(monkeypatch):
    record = {"file": "a", "page": 1, "text": "x" * 100_000, "truncated": False}
    assert len(show(record, alone=True)) == 100_000
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    shown = show(record, alone=True)
    assert len(shown) < 21_000 and "80,000 more characters" in shown


def test_what_was_cut_is_shown_and_stored(scans, says, tmp_path):
    says(TEXTS["nested tables"][:5000])
    done = run("ocr", scans / "a.jpg", "--out", tmp_path / "o")
    assert f"cut: {scans / 'a.jpg'} page 1: tables nested deeper than 20" in done.stderr
    assert json.loads((tmp_path / "o" / "a" / "result.json").read_text())["cut"]
    run("batch", scans / "a.jpg", "--out", tmp_path / "b", "--one-process")  # where the stub is
    assert json.loads((tmp_path / "b" / "a" / "result.json").read_text())["cut"]
    assert json.loads(run("ocr", scans / "a.jpg", "--json").stdout)[0]["cut"]


# ------------------------------------------------------------------ what lies in the output folder
@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
@pytest.mark.parametrize("name", ["images", "tables"])
def test_nothing_is_written_or_removed_through_a_link(name, scans, says, tmp_path):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "o"
    elsewhere.mkdir()
    (elsewhere / "7.jpg").write_text("mine")
    (out / "a").mkdir(parents=True)
    (out / "a" / "result.json").write_text(json.dumps({"files": ["images/7.jpg", "tables/7.csv"]}))
    (out / "a" / name).symlink_to(elsewhere)
    says(FIGURE)
    done = run("ocr", scans / "a.jpg", "--out", out, code=1)
    assert "it is a link, and results are not written through links" in done.stderr
    assert [path.name for path in elsewhere.iterdir()] == ["7.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_the_folder_of_a_page_is_never_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "page").symlink_to(tmp_path / "elsewhere")
    assert output_folder(tmp_path, Page("page.png", 1), set()).name == "page-2"


def test_anything_in_the_output_folder_leaves_a_batch_alone(scans, says, tmp_path, in_time):
    out = tmp_path / "o"
    for name, content in {
        "a": '{"a":' * 100_000,
        "b": '{"files": [{}], "source": 1}',
        "x": "[" * 100_000,
    }.items():
        (out / name).mkdir(parents=True)
        (out / name / "result.json").write_text(content)
    (out / "pipe").mkdir()
    fifo(out / "pipe" / "result.json")
    fifo(out / "a" / "result.mmd")
    (out / "loop").symlink_to(out)
    summary = read_batch(sorted(scans.iterdir()), says("text"), out)
    assert len(summary.read) == 3 and summary.failed == []
    assert read_batch(sorted(scans.iterdir()), says("text"), out).skipped == summary.read


# ------------------------------------------------------------------ files that block
def test_a_pipe_is_refused_as_plan_log_report_and_page(tmp_path, says, in_time):
    pipe = fifo(tmp_path / "pipe")
    with pytest.raises(PlanError, match=r"pipe: a FIFO, not a regular file; write a new plan"):
        Plan.load(pipe)
    with pytest.raises(ValueError, match="a FIFO, not a regular file"):
        load_benchmark(pipe)
    assert "a FIFO, not a regular file" in run("explain", pipe, code=2).stderr
    says("text")
    assert "not a regular file" in run("ocr", pipe, code=1).stderr


def test_a_plan_of_any_kind_is_one_error(tmp_path):
    path = tmp_path / "plan.json"
    for content in (
        b'{"format":' * 100_000,
        b"[]",
        b"1" * 5000,
        b"\xff",
        b'{"format": 1, "choices": []}',
        b"{}",
    ):
        path.write_bytes(content)
        with pytest.raises(PlanError) as error:
            Plan.load(path)
        assert str(path) in str(error.value) and len(str(error.value)) < 500


# ------------------------------------------------------------------ passwords
def test_the_remedy_for_an_encrypted_pdf_exists(tmp_path, says, monkeypatch):
    says("text")
    path = make_encrypted_pdf(tmp_path / "secret.pdf", "open sesame")
    assert "the PDF is encrypted; give its password (--password)" in run("ocr", path, code=1).stderr
    assert "the password is wrong" in run("ocr", path, "--password", "shut", code=1).stderr
    for words in (["ocr"], ["batch"]):
        out = tmp_path / words[0]
        assert run(*words, path, "--password", "open sesame", "--out", out).stdout
        assert not any(b"sesame" in file.read_bytes() for file in out.rglob("*") if file.is_file())
    monkeypatch.setenv("DESKOCR_PASSWORD", "open sesame")
    assert run("ocr", path).stdout == "text\n"


def test_a_password_is_not_shown_and_not_stored():
    options = ReadingOptions(password="open sesame")
    assert "sesame" not in repr(options) and "sesame" not in str(options.fingerprint())
    spec = BenchSpec(password="open sesame")
    assert "sesame" not in spec.command() and "password" not in spec.public()


# ------------------------------------------------------------------ signals and silence
SLOW = """
import os, sys, time
from pathlib import Path
import deskocr_kit.cli as cli
from model.files import write_atomically
os.replace = lambda *names: (print("half", flush=True), time.sleep(60))
cli.app = lambda: write_atomically(Path(sys.argv[1]) / "result.json", b"x" * 1000)
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_sigterm_leaves_no_half_written_file(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout.readline() == "half\n" and list(tmp_path.glob(".*.part"))
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=60) == 143
    assert list(tmp_path.iterdir()) == []


FIRST_WORD = """
import sys
import deskocr_kit.commands.predict as command
from deskocr_kit.cli import app
def note(text):
    print("torch" in sys.modules, text)
    sys.exit(0)
command.note = note
sys.argv = ["deskocr", "predict"]
app()
"""


def test_predict_says_what_it_does_before_it_imports_torch():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", FIRST_WORD], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("False predicting: counting the operators"), done.stderr
    assert time.monotonic() - began < 60


def test_a_backslash_and_an_n_in_a_prompt_are_told(scans, says):
    says("text")
    told = "reads as two characters"
    assert told in run("ocr", scans / "a.jpg", "--prompt", r"<image>\nFind \nabla here").stderr
    assert told not in run("ocr", scans / "a.jpg", "--prompt", r"<image>\nFree OCR.").stderr
