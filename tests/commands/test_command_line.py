"""The commands as a user types them, with the embedded checkpoint."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.commands.shell import Shell
from deskocr_kit.device.messages import message
from deskocr_kit.reading.sample_pages import sample_pages
from deskocr_kit.reading.text_distance import cer
from tests.helpers.fresh_process import deskocr
from tests.helpers.nano import RECORDS, bound
from tests.helpers.paths import ROOT

LETTER = ROOT / "model" / "nano" / "pages" / "1_letter.png"


def run(*words, code=0, **how):
    done = deskocr(*words, **how)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def reader():
    from deskocr_kit.reading.reader import Reader

    return Reader.load("nano", "cpu", "fp32")


NO_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "numpy", "PIL"):
            raise ImportError(f"{name} was asked for")
sys.meta_path.insert(0, Blocked())
import deskocr_kit
from deskocr_kit.cli import app
from typer.testing import CliRunner
lost = "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
for words in (["--help"], ["ocr", "--help"], ["shell", "--help"], ["explain", lost]):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, (words, result.output, result.exception)
print("fine")
"""


@pytest.mark.quick
def test_help_and_explain_work_without_torch():
    done = subprocess.run([sys.executable, "-c", NO_TORCH], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.quick
def test_json_is_a_list_of_records(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    words = ["ocr", LETTER, bad, LETTER, "--model", "nano", "--device", "cpu", "--json"]
    command = [sys.executable, "-m", "deskocr_kit", *words, "--out", tmp_path / "o"]  # all imports, too
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    first, broken, again = json.loads(done.stdout)
    assert first["file"] == str(LETTER) and first["page"] == 1
    assert cer(first["text"], LETTER.with_suffix(".txt").read_text()) <= bound("samples", 0.05)
    assert first["tokens"] > 50 and first["seconds"] > 0 and first["boxes"] == []
    assert (first["model"], first["mode"], first["dtype"], first["image_tokens"]) == (
        "nano",
        "tiny",
        "float32",
        73,
    )
    assert not first["truncated"]
    assert str(bad) in broken["error"] and "text" not in broken
    assert again["text"] == first["text"], "a bad page must not disturb the next one"
    assert first["out"] != again["out"] and Path(again["out"], "result.json").exists()
    assert json.loads(Path(first["out"], "result.json").read_text())["text"] == first["text"]
    assert "Traceback" not in done.stderr


def test_stream_prints_the_same_text():
    plain = run("ocr", LETTER, "--model", "nano", "--device", "cpu").stdout
    streamed = run("ocr", LETTER, "--model", "nano", "--device", "cpu", "--stream").stdout
    assert plain.strip() == streamed.strip() and len(plain) > 50


def test_token_limit_is_said():
    words = ("ocr", LETTER, "--model", "nano", "--max-tokens", "5")
    assert "cut off at the token limit" in run(*words).stdout
    assert "cut off at the token limit" in run(*words, "--stream").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ocr", LETTER, "--model", "/nowhere"], "/nowhere: no such folder"),
        (["ocr", LETTER, "--model", "nano", "--mode", "huge"], "huge"),
        (["ocr", LETTER, "--model", "nano", "--prompt", "documnet"], "document"),
        (["ocr", LETTER, "--model", "nano", "--prompt", "locate"], "locate"),
        (["ocr", LETTER, "--model", "nano", "--dtype", "int3"], "int3"),
        (["ocr", LETTER, "--model", "nano", "--device", "abacus"], "abacus"),
        (["ocr", LETTER, "--model", "nano", "--json", "--stream"], "cannot be combined"),
    ],
)
def test_bad_calls_say_what_is_wrong_in_one_line(words, told):
    done = run(*words, code=2)
    assert told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["ocr", "batch"])
def test_a_folder_without_pages_and_an_out_that_is_a_file_are_bad_calls(name, tmp_path):
    (tmp_path / "letter.txt").write_text("no page")
    done = run(name, tmp_path, "--out", tmp_path / "o", code=2)
    assert "no image or PDF" in done.stderr and not (tmp_path / "o").exists()
    done = run(name, LETTER, "--out", tmp_path / "letter.txt", code=2)
    assert "this is a file" in done.stderr and "reading with" not in done.stderr


def test_what_was_dropped_of_a_page_is_said(tmp_path):
    from PIL import Image

    Image.new("RGBA", (64, 64)).save(tmp_path / "clear.png")
    done = run("ocr", tmp_path / "clear.png", "--model", "nano", "--max-tokens", "2")
    assert "transparency dropped" in done.stderr and "transparency" not in done.stdout


def test_missing_page_is_an_error_record_not_a_crash():
    done = run("ocr", "/nowhere.png", "--model", "nano", "--json", code=1)
    assert "/nowhere.png" in json.loads(done.stdout)[0]["error"]


def test_demo_prints_text_beside_truth_and_draws_boxes(tmp_path):
    done = run("demo", "--device", "cpu", "--out", tmp_path, env={**os.environ, "COLUMNS": "160"})
    assert "CER over all pages" in done.stdout and str(tmp_path) in done.stdout
    for page, truth in sample_pages():
        folder = tmp_path / page.stem
        assert {"text.txt", "result.mmd", "result.json", "result_with_boxes.jpg"} <= {
            p.name for p in folder.iterdir()
        }
        assert (folder / "text.txt").read_text().strip() and truth.strip()
        record = json.loads((folder / "result.json").read_text())
        assert record["prompt"] == "ocr" and record["free_text"] == (folder / "text.txt").read_text().strip()
        assert [box["label"] for box in record["boxes"]] == [
            r["label"] for r in record["refs"] for _ in r["boxes"]
        ]
    assert f"CER over all pages: {RECORDS['samples']['cer']:.4f}"[:-2] in done.stdout
    assert done.stdout.rstrip().endswith(str(tmp_path / "index.html"))
    assert (tmp_path / "index.html").read_text("utf-8").count("<article") == len(sample_pages())
    assert "hf download deepseek-ai/DeepSeek-OCR" in done.stderr and "does not read tables" in done.stderr


def shell_says(reader, *lines):
    out = io.StringIO()
    shell = Shell(reader, stdin=io.StringIO("\n".join(lines) + "\n"), stdout=out)
    shell.use_rawinput = False
    shell.cmdloop()
    return out.getvalue()


def test_shell_knows_test_path_mode_prompt_help_quit(reader, tmp_path):
    said = shell_says(
        reader,
        "test",
        "mode huge",
        "mode tiny",
        "prompt locate a cat",
        "prompt free",
        str(tmp_path / "no.png"),
        "help",
        "quit",
        "test",
    )
    assert said.count("truth:") == 1, "nothing is read after quit"
    assert "error: " in said and "no.png" in said
    assert "mode tiny" in said and "Locate <|ref|>a cat<|/ref|>" in said
    for word in ("all", "exit", "mode", "prompt", "test", "quit"):
        assert word in said


def test_shell_ends_at_end_of_input_and_ignores_empty_lines(reader):
    assert "deskocr>" in shell_says(reader, "", "EOF")


def test_unknown_errors_are_not_swallowed():
    assert "error: no" in message(ValueError("no"))
    assert "ZeroDivisionError" in message(ZeroDivisionError("division by zero"))


@pytest.mark.quick
def test_every_command_has_help():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    for name in names:
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0 and name in result.output
