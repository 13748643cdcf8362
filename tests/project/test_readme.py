"""The commands in the README exist, and its Python code runs."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.main import get_command

from deskocr_kit.cli import app
from deskocr_kit.reading.text_distance import cer
from tests.helpers.fresh_process import python
from tests.helpers.nano import bound
from tests.helpers.paths import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)
LINES = [
    line.split("#")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()
]
COMMANDS = [line for line in LINES if line.startswith("deskocr ")]
TARGETS = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_exists(line):
    words, command = shlex.split(line)[1:], get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("--"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_make_target_exists():
    told = re.findall(r"make ([a-z-]+)", TEXT)
    assert {"ocr", "test"} <= set(told) <= set(TARGETS)


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_the_python_in_it_runs_and_reads():
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    done = python(code + "\nprint(text)")
    assert done.returncode == 0, done.stderr
    truth = (ROOT / "model" / "nano" / "pages" / "1_letter.txt").read_text()
    assert cer(done.stdout, truth) <= bound("samples", 0.05)


def test_pictures_have_alternative_text():
    for alt, _ in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", TEXT):
        assert len(alt) > 20


def test_ci_runs_what_the_readme_says():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
