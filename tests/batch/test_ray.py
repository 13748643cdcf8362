"""A local Ray: its actors leave what a single process leaves, also when they are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from deskocr_kit.batch import ray_data
from deskocr_kit.batch.devices import LocalDevice
from deskocr_kit.batch.ray_data import RayCluster
from deskocr_kit.batch.run import Plan, run
from deskocr_kit.batch.sources import sources
from deskocr_kit.reading.options import PageOptions
from deskocr_kit.reading.reader import Reader
from tests.helpers import stub_reader
from tests.helpers.batches import check_lines, essence, lines, stub_batch
from tests.helpers.killing import no_process_is_left
from tests.helpers.mixed_pages import mixed
from tests.helpers.paths import NANO, ROOT
from tests.helpers.stub_reader import EXITS, GOOD, KILLED_ONCE, POISONS, RAISES, reads, save

pytestmark = pytest.mark.skipif(
    not ray_data.is_installed(), reason='Ray Data is not installed: pip install -e ".[ray]"'
)
slow = pytest.mark.slow  # Ray starts a dozen processes, and a worker two more


@pytest.fixture
def counted(tmp_path, monkeypatch):
    monkeypatch.setenv("STUB_READS", str(tmp_path / "reads.txt"))
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other programs may fill this machine
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or keep it busy
    return tmp_path / "reads.txt"


def cluster(workers: int, **how) -> RayCluster:
    return RayCluster(stub_reader.load, "cpu", PageOptions(), workers=workers, **how)


def test_one_actor_reads_what_this_process_reads(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD, RAISES, GOOD])
    files.append(tmp_path / "missing.png")
    summary = stub_batch(files, tmp_path / "ray", devices=[cluster(1)])
    stub_batch(files, tmp_path / "single")
    assert essence(tmp_path / "ray") == essence(tmp_path / "single")
    assert summary.kinds == {"reading": 1, "file": 1} and sum(summary.devices.values()) == 2


@slow
def test_two_actors_leave_what_a_single_process_leaves(tmp_path, counted, monkeypatch):
    files = mixed(tmp_path / "in", 60)
    monkeypatch.setenv("STUB_SECONDS", "0.1")
    summary = stub_batch(files, tmp_path / "ray", devices=[cluster(2)], batch_size=2, formats=("md",))
    monkeypatch.setenv("STUB_SECONDS", "0")
    stub_batch(files, tmp_path / "single", batch_size=2, formats=("md",))
    check_lines(tmp_path / "ray")
    assert essence(tmp_path / "ray") == essence(tmp_path / "single")
    for path in (tmp_path / "single" / "documents").iterdir():
        assert (tmp_path / "ray" / "documents" / path.name).read_bytes() == path.read_bytes()
    assert len(summary.devices) == 2 and min(summary.devices.values()) >= 10, summary.devices
    again = stub_batch(files, tmp_path / "ray", devices=[cluster(1)], batch_size=2, formats=("md",))
    assert not again.read and essence(tmp_path / "ray") == essence(tmp_path / "single")


@slow
def test_a_killed_actor_changes_nothing(tmp_path, counted, monkeypatch):
    """The processes of actors are killed while they read: the parents of those that note their pages."""
    files = mixed(tmp_path / "in", 60)
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    rng, killed = random.Random(5), set()

    def kill():
        while len(killed) < 3 and not over.wait(0.2):
            workers = {process for process, *_ in reads(counted)}
            actors = {parent(each) for each in workers} - killed - {0, 1}
            if len(reads(counted)) > 8 * (len(killed) + 1) and actors:
                killed.add(rng.choice(sorted(actors)))
                os.kill(max(killed, key=lambda each: each in actors), signal.SIGKILL)

    over = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        stub_batch(files, tmp_path / "ray", devices=[cluster(2)], batch_size=2, formats=("md",))
    finally:
        over.set()
        killer.join()
    monkeypatch.setenv("STUB_SECONDS", "0")
    stub_batch(files, tmp_path / "single", batch_size=2, formats=("md",))
    assert len(killed) == 3 and essence(tmp_path / "ray") == essence(tmp_path / "single")


def parent(process: int) -> int:
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@slow
def test_pages_that_end_their_worker_and_a_poisoned_device(tmp_path, counted):
    kinds = [GOOD, EXITS, POISONS, GOOD, KILLED_ONCE, RAISES, *[GOOD] * 6]
    files = save(tmp_path / "in", kinds)
    summary = stub_batch(files, tmp_path / "ray", devices=[cluster(2)])
    assert summary.kinds == {"worker": 1, "reading": 1} and len(summary.read) == 10
    poisoned = lines(tmp_path / "ray")[2]
    assert "507035" in poisoned["tries"][0]["error"] and poisoned["text"] == "page 2"
    assert summary.restarts >= 4  # twice for EXITS, once for each of the others


@slow
def test_a_killed_run_continues_and_leaves_no_process(tmp_path, counted, monkeypatch):
    files = mixed(tmp_path / "in", 40)
    monkeypatch.setenv("STUB_SECONDS", "0.2")
    words = [sys.executable, "-m", "tests.helpers.stub_run", str(tmp_path / "ray"), "ray2", "2"]
    process = subprocess.Popen([*words, *map(str, files)], cwd=ROOT, start_new_session=True)
    late = time.monotonic() + 300
    while len(list((tmp_path / "ray").glob("*/result.json"))) < 3 and time.monotonic() < late:
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert no_process_is_left({process for process, *_ in reads(counted)}, seconds=30)
    monkeypatch.setenv("STUB_SECONDS", "0")
    summary = stub_batch(files, tmp_path / "ray", devices=[cluster(2)], batch_size=2, formats=("md",))
    stub_batch(files, tmp_path / "single", batch_size=2, formats=("md",))
    assert summary.skipped and essence(tmp_path / "ray") == essence(tmp_path / "single")


@slow
def test_the_command_with_nano_gives_the_text_of_a_single_process(tmp_path):
    """pages.jsonl byte for byte, apart from times and what follows from the grouping of pages."""
    pages = sorted((NANO / "pages").glob("*.png"))
    options = PageOptions(max_tokens=40)
    words = ["batch", *pages, "--out", tmp_path / "ray", "--model", "nano", "--device", "cpu"]
    more = ["--max-tokens", "40", "--engine", "ray", "--workers", "2", "--format", "md"]
    done = subprocess.run(
        [sys.executable, "-m", "deskocr_kit", *map(str, words), *more],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    device = LocalDevice(Reader.load("nano", "cpu"), options)
    run(sources(map(str, pages)), tmp_path / "single", [device], options, Plan())
    assert essence(tmp_path / "ray") == essence(tmp_path / "single")


@slow
def test_a_device_that_cannot_be_loaded_is_reported_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="^the stub cannot be loaded on this device$"):
        broken = RayCluster(load_broken, "cpu", PageOptions(), workers=1)
        stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out", devices=[broken])


def load_broken(device: str):
    return stub_reader.load("broken")
