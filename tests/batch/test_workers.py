"""Worker processes: one per device, replaced when they end, fail for good, or take too long."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest

from deskocr_kit.batch.devices import DeviceName, LocalDevice, WorkerDevice, about
from deskocr_kit.batch.faults import CannotContinue
from deskocr_kit.reading.options import PageOptions
from tests.helpers.batches import check_lines, stub_batch
from tests.helpers.paths import NANO, ROOT
from tests.helpers.stub_reader import EXITS, GOOD, HANGS, KILLED_ONCE, POISONS, RAISES, load, reads, save


def workers(count=1, names=(), **how):
    return [WorkerDevice(load, name, PageOptions(), **how) for name in names or ["stub"] * count]


@pytest.fixture
def counted(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_READS", str(tmp_path / "reads.txt"))
    return tmp_path / "reads.txt"


def test_two_workers_share_one_queue_evenly(tmp_path, counted, monkeypatch):
    files = save(tmp_path / "in", [GOOD] * 100)
    monkeypatch.setenv("STUB_SECONDS", "0.03")
    summary = stub_batch(files, tmp_path / "out", devices=workers(2), batch_size=2)
    read = reads(counted)
    assert sorted(number for _, _, number, *_ in read) == list(range(100)), "every page once"
    shares = [sum(process == each for process, *_ in read) for each in {process for process, *_ in read}]
    assert len(shares) == 2 and all(40 <= share <= 60 for share in shares), shares
    assert sorted(summary.devices.values()) == sorted(shares) and len(check_lines(tmp_path / "out")) == 100


def test_a_worker_that_is_poisoned_or_hangs_is_replaced_and_costs_no_other_page(
    tmp_path, counted, monkeypatch
):
    files = save(tmp_path / "in", [POISONS, GOOD, HANGS])
    summary = stub_batch(files, tmp_path / "out", devices=workers(deadline=1.0), batch_size=3)
    lines = check_lines(tmp_path / "out")
    assert [line["state"] for line in lines] == ["done", "done", "failed"]
    assert lines[2]["kind"] == "deadline" and "not read after 1 s" in lines[2]["error"]
    outcomes = [[each["outcome"] for each in line["tries"]] for line in lines]
    assert outcomes == [["device", "done"], ["device", "done"], ["device", "deadline"]]
    assert summary.restarts == 1 and summary.pending == 0
    assert len({process for process, *_ in reads(counted)}) == 2


@pytest.mark.slow  # two workers are started several times
def test_a_page_that_ends_its_worker_is_set_aside_and_two_workers_lose_nothing(
    tmp_path, counted, monkeypatch
):
    kinds = [GOOD, GOOD, KILLED_ONCE, EXITS, GOOD, RAISES, KILLED_ONCE, *[GOOD] * 20]
    files = save(tmp_path / "in", kinds)
    monkeypatch.setenv("STUB_SECONDS", "0.01")
    summary = stub_batch(files, tmp_path / "out", devices=workers(2), batch_size=1)
    assert summary.kinds == {"worker": 1, "reading": 1} and len(summary.read) == 25
    lines = check_lines(tmp_path / "out")
    (failed,) = [line for line in lines if line.get("kind") == "worker"]
    assert "status 3" in failed["error"] and failed["attempts"] == 2
    assert "SIGKILL" in lines[2]["tries"][0]["error"] and lines[2]["text"] == "page 2"
    assert summary.restarts >= 3


class Fake(LocalDevice):
    """Looks like a worker, and needs no process."""

    prepares = True

    def __init__(self, reads_pages=10**9, starts=True):
        super().__init__(load(), PageOptions())
        self.left, self.starts = reads_pages, starts

    def start(self):
        if not self.starts:
            raise CannotContinue("the card is busy")
        return super().start()

    def read(self, items, guard=None):
        self.left -= len(items)
        if self.left < 0:
            raise CannotContinue("the card has fallen off the bus")
        return super().read(items, guard)


def test_a_device_that_cannot_be_used_leaves_the_work_to_the_others(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD] * 20)
    for i, lost in enumerate((Fake(starts=False, reads_pages=0), Fake(reads_pages=0), Fake(reads_pages=3))):
        summary = stub_batch(files, tmp_path / f"out{i}", devices=[lost, Fake()], batch_size=2)
        assert (
            len(summary.read) == 20 and not summary.stopped and len(check_lines(tmp_path / f"out{i}")) == 20
        )


def test_without_any_device_the_pages_stay_pending(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD] * 20)
    with pytest.raises(CannotContinue, match="the card is busy"):
        stub_batch(files, tmp_path / "out", devices=[Fake(starts=False), Fake(starts=False)])
    summary = stub_batch(files, tmp_path / "out", devices=[Fake(3), Fake(4)])
    assert "fallen off the bus" in summary.stopped and not summary.failed
    assert len(summary.read) + summary.pending == 20 and summary.pending >= 13
    assert len(stub_batch(files, tmp_path / "out").read) == summary.pending


@pytest.mark.slow  # a worker is started and fails
def test_the_reason_why_a_worker_does_not_start_reaches_the_user(tmp_path):
    with pytest.raises(CannotContinue, match="the stub cannot be loaded on this device"):
        stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "none", devices=workers(names=["broken"]))


@pytest.mark.slow  # a worker is started once per page
def test_a_worker_is_replaced_after_a_number_of_pages(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD] * 6)
    summary = stub_batch(files, tmp_path / "out", devices=workers(restart_after=2), batch_size=2)
    assert len(summary.read) == 6 and len({process for process, *_ in reads(counted)}) == 3


def test_what_a_worker_tells_about_its_device_needs_no_torch_npu():
    """The main process does not import torch_npu, and torch.device("npu") fails there, also from a pickle."""
    reader = load()
    reader.model.device = DeviceName("npu:1")  # as torch.device there: it has a type and a name
    found = pickle.loads(pickle.dumps(about(reader, PageOptions())))
    assert (str(found.reader.model.device), found.settings["device"]) == ("npu:1", "npu")
    assert type(found.reader.model.device) is DeviceName and found.reader.tokenizer is None


@pytest.mark.slow  # the simulated NPU is started
def test_a_worker_with_a_simulated_npu_reads_for_a_main_process_without(tmp_path):
    page = NANO / "pages" / "1_letter.png"
    words = ["batch", page, "--out", tmp_path, "--model", "nano", "--device", "npu-sim", "--max-tokens", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "deskocr_kit", *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "1_letter" / "result.json").read_text())["device"].startswith("npu")
