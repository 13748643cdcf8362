"""`make test-slow` reaches every slow test, each in a process that collects it."""

from __future__ import annotations

import re

import pytest
from hypothesis import settings

from tests.helpers.paths import ROOT, TESTS

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
#: {folder that its conftest leaves out of other processes: the variable that the process needs}.
LEFT_OUT = {"simulator": "DESKOCR_DEVICE=npu-sim", "kernels": "TRITON_INTERPRET=1"}


def recipe(target: str) -> list[str]:
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)[1].splitlines()


def test_the_folders_that_need_a_process_are_known():
    found = {each.parent.name: each.read_text("utf-8") for each in TESTS.glob("*/conftest.py")}
    assert {name for name, text in found.items() if "collect_ignore_glob" in text} == set(LEFT_OUT)
    for folder, variable in LEFT_OUT.items():
        assert variable in found[folder]


@pytest.mark.parametrize("folder", LEFT_OUT)
def test_slow_tests_of_such_a_folder_run_once_in_their_process(folder):
    first, *others = recipe("test-slow")
    assert f"--ignore=tests/{folder}_process" in first  # a test there starts the same suite
    words = rf"{LEFT_OUT[folder]} .*-m slow tests/{folder}\b"
    assert sum(bool(re.search(words, line)) for line in others) == 1


def test_only_what_test_full_measures_is_left_out():
    """Each deselected name is the start of a test in the file, so a renamed test does not escape."""
    names = re.search(r"^OFFICIAL := (test_.*)$", MAKEFILE, re.M)[1].split()
    file = TESTS / "official_size" / "test_official_size.py"
    text = file.read_text("utf-8")
    assert "$(OFFICIAL:%=--deselect=%)" in recipe("test-slow")[0]
    for name in names:
        assert len(re.findall(rf"^def {name}", text, re.M)) == 1, name


def test_make_fuzz_has_the_generated_tests_of_the_kernels():
    """The other folder has none; `-m fuzz tests` leaves both out."""
    generated = [folder for folder in LEFT_OUT if "mark.fuzz" in "".join(
        each.read_text("utf-8") for each in (TESTS / folder).rglob("test_*.py")
    )]  # fmt: skip
    first, second = recipe("fuzz")
    assert first.endswith("-m fuzz tests") and generated == ["kernels"]
    assert "TRITON_INTERPRET=1" in second and "-m fuzz tests/kernels" in second


def test_make_fuzz_draws_new_input_and_stores_what_it_finds():
    """A profile takes what it does not set from the profile named "default", which repeats its input."""
    usual, fuzz = settings.get_profile("default"), settings.get_profile("fuzz")
    assert usual.derandomize and usual.database is None
    assert not fuzz.derandomize and fuzz.database is not None and fuzz.max_examples > usual.max_examples
