"""The launcher of processes: one message, one exit status, nothing left running. Programs without torch."""

from __future__ import annotations

import os
import sys
import time

import pytest

from model.parallel import launch

HEAD = "import os, sys, time; rank = int(os.environ['RANK']); "


def start(code, ranks=2):
    return launch.launch(ranks, [sys.executable, "-S", "-c", HEAD + code])


def test_the_programs_know_their_rank_and_only_rank_0_writes(capfd):
    code = (
        "print(rank, os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'], os.environ['OMP_NUM_THREADS'] != '')"
    )
    assert start(code, ranks=3) == 0
    assert capfd.readouterr().out == "0 3 0 True\n"


def test_the_status_of_rank_0_is_the_result():
    assert start("sys.exit(1 if rank == 0 else 0)") == 1


@pytest.mark.parametrize("first", [0, 1])
def test_an_error_of_all_ranks_is_shown_once_whoever_is_first(first, capfd):
    code = (
        f"time.sleep(0 if rank == {first} else 0.3); print('error: no weights', file=sys.stderr); sys.exit(2)"
    )
    assert start(code) == 2
    assert capfd.readouterr().err == "error: no weights\n"


def test_an_error_of_one_rank_ends_the_others(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(launch, "SETTLE", 0.2)
    code = f"""
here = os.path.join({str(tmp_path)!r}, "pid")
if rank == 0:
    open(here + ".part", "w").write(str(os.getpid()))
    os.rename(here + ".part", here)
    time.sleep(60)
while not os.path.exists(here):
    time.sleep(0.01)
sys.exit(print("error: rank 1: the card", file=sys.stderr) or 3)
"""
    began = time.monotonic()
    assert start(code, ranks=2) == 3
    assert capfd.readouterr().err == "error: rank 1: the card\n"
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_is_reported(rank, capfd):
    assert start(f"rank == {rank} and os.kill(os.getpid(), 9); time.sleep(60)") == 137
    said = f"error: rank {rank} of 2 was ended by SIGKILL; the system may have run out of memory\n"
    assert capfd.readouterr().err == said


def test_a_process_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(launch, "LEAVE", 0.3)
    code = "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60 if rank else 0.5)"
    began = time.monotonic()
    assert start(code) == 0
    assert time.monotonic() - began < 30


def test_messages_are_shown_at_once_for_debugging(capfd, monkeypatch):
    monkeypatch.setenv("DESKOCR_DEBUG", "1")
    assert start("rank == 1 and print('hint', file=sys.stderr)") == 0
    assert capfd.readouterr().err == "hint\n"
