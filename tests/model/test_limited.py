"""A child process with limits: what it answers, and what stops it."""

from __future__ import annotations

import re
import sys
import time

import pytest

from model.limited import LimitExceeded, run_limited
from tests.helpers.paths import ROOT

CHILD = "tests.helpers.child_that_misbehaves"
LIMITS = {"seconds": 60.0, "memory": 256 << 20}


def test_the_answer_is_what_the_child_writes():
    send = bytes(range(256)) * 5000
    answer = run_limited(CHILD, ["echo"], send=send, **LIMITS)
    assert (answer.status, answer.output, answer.errors) == (0, send, "")


def test_a_child_that_does_not_end_is_killed():
    began = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"not finished after 0\.5 s"):
        run_limited(CHILD, ["sleep"], seconds=0.5, memory=LIMITS["memory"])
    assert time.monotonic() - began < 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space")
def test_memory_is_limited():
    answer = run_limited(CHILD, ["memory"], **LIMITS)
    assert answer.status != 0 and "MemoryError" in answer.errors


def test_an_endless_answer_is_cut():
    with pytest.raises(LimitExceeded, match="more than 1,000,000 bytes"):
        run_limited(CHILD, ["flood"], answer_bytes=1_000_000, **LIMITS)


def test_an_aborted_child_is_an_answer_with_a_status():
    assert run_limited(CHILD, ["crash"], **LIMITS).status != 0


def test_the_end_of_the_errors_is_kept():
    answer = run_limited(CHILD, ["complain"], **LIMITS)
    assert answer.status == 3 and answer.errors.endswith("yend") and len(answer.errors) == 4000


def test_modules_of_the_working_folder_are_not_imported(tmp_path, monkeypatch):
    """A stranger's folder may hold a json.py; `python -m` would run it."""
    for name in ("json", "struct", "runpy", "os", "tokenizers", "model", "encodings"):
        (tmp_path / f"{name}.py").write_text("print('ran')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    answer = run_limited(CHILD, ["echo"], send=b"x", **LIMITS)
    assert (answer.status, answer.output) == (0, b"x"), answer.errors


def test_no_process_of_the_kit_starts_in_a_folder_that_it_imports_from():
    """`-m` and `-c` put the working folder first in sys.path, `-I` and START do not."""
    allowed = {"simulator/subprocess.py"}  # starts in the folder of the kit
    for path in (ROOT / "deskocr_kit").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for start in re.findall(r"sys\.executable,([^\]]*)", text):
            name = path.relative_to(ROOT / "deskocr_kit").as_posix()
            assert name in allowed or "START" in start or '"-I"' in start, (name, start)
