"""Commands, options and modules that the pages name exist, in code blocks and in code within a text."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from deskocr_kit.cli import app
from deskocr_kit.reading.options import PageOptions
from model.official import CHECKPOINTS
from tests.helpers.paths import ROOT

PAGES = sorted(
    path
    for folder in (".", ".github", "docs", "deskocr_kit", "model", "notebooks", "reports", "tests")
    for path in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")
)
TARGETS = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.M)
#: Options of other programs that a text names without the program.
FOREIGN = {"--break-system-packages", "--require-hashes", "--trust-remote-code"}


def every_command() -> list[tuple[tuple[str, ...], Any]]:
    """(its words, the command) of every command and group."""

    def walk(command, words):
        yield words, command
        for name, each in getattr(command, "commands", {}).items():
            yield from walk(each, (*words, name))

    return list(walk(get_command(app), ()))


@lru_cache(maxsize=1)
def commands() -> dict[tuple[str, ...], set[str]]:
    """{words of a command: its options}."""
    return {
        words: {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for words, command in every_command()
    }


def source_of(module: str) -> Path:
    """The file that `python -m` runs."""
    place = ROOT / module.replace(".", "/")
    return place / "__main__.py" if place.is_dir() else place.with_suffix(".py")


def spans(text: str) -> list[str]:
    """Code within a text, and the lines of code blocks without their comments."""
    blocks = re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.S)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def wrong_options(span: str) -> list[str]:
    """Options in a span that its command does not have; an option alone may be of any command."""
    given = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span))
    if span.startswith("--"):
        return sorted(given - set().union(*commands().values()) - FOREIGN)
    if module := re.search(r"-m ((?:deskocr_kit|docs|model|tests)\.[\w.]+)", span):  # its source has them
        file = source_of(module[1])
        files = file.parent.glob("*.py") if file.name == "__main__.py" else [file]
        source = "".join(each.read_text(encoding="utf-8") for each in files)
        return sorted(option for option in given if f'"{option}"' not in source)
    if not (match := re.search(r"(?:^|\s)(?:deskocr|-m deskocr_kit)(?=\s|$)((?: [a-z_-]+)*)", span)):
        return []
    words = tuple(match[1].split())
    while words and words not in commands():
        words = words[:-1]
    after = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", span[match.start() :]))
    if not words and (named := match[1].split()):
        return [f"no command {named[0]}"]
    return sorted(after - commands()[words])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_options_that_a_page_names_exist(path):
    text = path.read_text(encoding="utf-8")
    wrong = {span: found for span in spans(text) if (found := wrong_options(span))}
    assert wrong == {}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_targets_that_a_page_names_exist(path):
    for span in spans(path.read_text(encoding="utf-8")):
        for name in re.findall(r"python[\d.]* -m ((?:deskocr_kit|docs|model|tests)[\w.]*)", span):
            assert source_of(name).is_file(), span
        for target in re.findall(r"(?:^|; |&& )make ([a-z-]+)", span):
            assert target in TARGETS, span


def test_an_option_that_does_not_exist_is_found():
    assert wrong_options("deskocr ocr page.png --no-such-option") == ["--no-such-option"]
    assert wrong_options("cat pages.txt | deskocr weights check nano --no-such-option") == [
        "--no-such-option"
    ]
    assert wrong_options("--no-such-option") == ["--no-such-option"]
    assert wrong_options("deskocr frobnicate") == ["no command frobnicate"]
    assert wrong_options("deskocr weights check nano --hash") == []


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_checkpoint_that_a_command_takes_without_model_is_as_stated(name):
    """The paragraph that begins with "Without `--model`" names each command that reads a checkpoint."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if "`--model`" in line and "`$DESKOCR_MODEL`" in line)
    words = re.findall(r"`([^`]+)`", line)[1:]  # without --model itself
    stated, group = {}, []
    for word in words:
        if (word,) in commands():
            group.append(word)
        elif group:
            stated |= dict.fromkeys(group, word)
            group = []
    stated |= dict.fromkeys(group, "official")
    with_model = {
        words[0]: next(p.default for p in command.params if "--model" in p.opts)
        for words, command in every_command()
        if words and any("--model" in p.opts for p in command.params)
    }
    for other in ("doctor", "demo"):  # doctor checks all folders; demo is what `make ocr` runs
        del with_model[other]
    assert stated == {key: value or "$DESKOCR_MODEL" for key, value in with_model.items()}


def test_the_table_of_modes_and_prompts_is_that_of_the_checkpoints():
    text = (ROOT / "model" / "README.md").read_text(encoding="utf-8")
    for each in CHECKPOINTS.values():
        (row,) = re.findall(rf"^\| {re.escape(each.title)} \| (\w.*?) \| (\w.*?) \|$", text, re.M)
        modes = re.findall(r"(\w+) \((\d+)(?:, tiles of (\d+))?\)", row[0])
        found = {name: (int(base), int(tile or base), bool(tile)) for name, base, tile in modes}
        assert found == dict(each.modes) and modes[0][0] == each.mode
        prompts = [part.split(" (")[0] for part in re.split(r", (?![^(]*\))", row[1])]
        assert set(prompts) == set(each.prompts) and prompts[0] == PageOptions().prompt
