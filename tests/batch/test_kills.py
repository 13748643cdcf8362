"""A run that is killed again and again ends equal to one that was not."""

from __future__ import annotations

import pytest

from tests.helpers.batches import check_lines, essence, stub_batch
from tests.helpers.killing import no_process_is_left, run_with_kills
from tests.helpers.mixed_pages import mixed
from tests.helpers.stub_reader import reads

LOST = 12  # pages that a kill may cost, with batches of 2


@pytest.fixture
def counted(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_READS", str(tmp_path / "reads.txt"))
    return tmp_path / "reads.txt"


def check(tmp_path, counted, files, count, kills, monkeypatch, **how):
    monkeypatch.setenv("STUB_SECONDS", "0.02")
    ended = run_with_kills(files, tmp_path / "killed", counted, kills, **how)
    assert ended["status"] == 1 and "Traceback" not in ended["errors"], ended
    read = len(reads(counted))
    assert no_process_is_left({process for process, *_ in reads(counted)}), "a worker outlives its run"
    monkeypatch.setenv("STUB_SECONDS", "0")
    stub_batch(files, tmp_path / "whole", batch_size=2, formats=("md",))
    assert len(check_lines(tmp_path / "killed")) == count
    assert essence(tmp_path / "killed") == essence(tmp_path / "whole")
    for folder in ("documents", "."):
        names = [sorted(p.name for p in (tmp_path / out / folder).iterdir() if p.suffix != ".part" and
                        not p.name.startswith((".", "index"))) for out in ("killed", "whole")]  # fmt: skip
        assert names[0] == names[1]
    for path in (tmp_path / "whole" / "documents").iterdir():
        assert (tmp_path / "killed" / "documents" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "killed").glob("*.part"))
    once = len(reads(counted)) - read
    # A kill loses at most what was on its way: the group on each device, and what waits to be written.
    assert read - once <= kills * LOST, "a page that is done is not read again"
    return f"{once} calls without a kill, {read} with {kills} kills"


def test_a_run_of_12_pages_killed_twice_ends_equal_to_one_that_was_not(tmp_path, counted, monkeypatch):
    files = mixed(tmp_path / "in", 12)
    check(tmp_path, counted, files, 12, kills=2, seed=1, monkeypatch=monkeypatch)


@pytest.mark.slow  # 21 processes, each imports torch; with workers twice or three times as many
@pytest.mark.parametrize("devices, seed", [(0, 11), (1, 12), (2, 13)])
def test_a_mixed_run_of_200_pages_killed_twenty_times_ends_equal(
    tmp_path, counted, monkeypatch, devices, seed
):
    files = mixed(tmp_path / "in", 200)
    read = check(tmp_path, counted, files, 200, kills=20, seed=seed, devices=devices, monkeypatch=monkeypatch)
    print(f"{devices} workers: {read}")
