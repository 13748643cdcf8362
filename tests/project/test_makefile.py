"""`make test-slow` reaches every slow test, each in a process that collects it."""

from __future__ import annotations

import re

import pytest

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
