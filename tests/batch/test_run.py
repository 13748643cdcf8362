"""Runs of a batch: nothing is lost, nothing is read twice; with a stub reader, in this process."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from deskocr_kit.batch import outcome as outcomes
from deskocr_kit.batch import writer as writers
from deskocr_kit.batch.decode import Preparer
from deskocr_kit.batch.lock import FolderLock, Locked
from deskocr_kit.batch.manifest import NAME, Manifest
from deskocr_kit.batch.progress import Progress
from deskocr_kit.batch.sources import Source
from tests.helpers.batches import check_lines, essence, lines, stub_batch
from tests.helpers.stub_reader import (
    CUT_OFF,
    GOOD,
    LOOPS,
    NEVER_FITS,
    RAISES,
    RAISES_IN_GROUP,
    TOO_LARGE,
    page,
    reads,
    save,
)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """The file in which the stub reader notes every page that it reads."""
    path = tmp_path / "reads.txt"
    monkeypatch.setenv("STUB_READS", str(path))
    return path


def pdf(path: Path, numbers, kind=GOOD) -> Path:
    first, *rest = (page(kind, number, (96, 128)) for number in numbers)
    first.save(path, save_all=True, append_images=rest)
    return path


# ------------------------------------------------------------------ pages in = pages out
def test_every_page_has_exactly_one_line_whatever_happens_to_it(tmp_path, counted):
    kinds = [GOOD, RAISES, RAISES_IN_GROUP, TOO_LARGE, NEVER_FITS, LOOPS, CUT_OFF] * 3
    files = save(tmp_path / "in", kinds)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    files += [
        tmp_path / "in" / "broken.png",
        tmp_path / "missing.png",
        pdf(tmp_path / "three.pdf", [1, 2, 3]),
    ]
    summary = stub_batch(files, tmp_path / "out", batch_size=4, workers=3, formats=("md",), gallery=True)
    found = check_lines(tmp_path / "out")
    assert [line["file"] for line in found] == [str(f) for f in files] + [str(files[-1])] * 2, (
        "in the order given"
    )
    failed = {Path(line["file"]).name: line["kind"] for line in found if line["state"] == "failed"}
    expected = {f"{i:04}.png": "reading" for i in range(1, 21, 7)} | {
        f"{i:04}.png": "memory" for i in range(4, 21, 7)
    }
    assert failed == expected | {"broken.png": "file", "missing.png": "file"}
    assert summary.kinds == {"reading": 3, "memory": 3, "file": 2} and summary.pending == 0
    assert len(summary.read) + len(summary.failed) == len(found) == 26
    again = [line for line in found if any("guard" in each for each in line["tries"])]
    assert len(again) == len(summary.again) == 6 and not summary.loops and not summary.truncated
    assert (tmp_path / "out" / "index.html").exists()


def test_a_page_that_is_done_is_never_read_again(tmp_path, counted):
    files = [*save(tmp_path / "in", [GOOD, RAISES, GOOD]), pdf(tmp_path / "two.pdf", [7, 8])]
    stub_batch(files, tmp_path / "out", batch_size=2)
    first = essence(tmp_path / "out")
    counted.unlink()
    summary = stub_batch(files, tmp_path / "out", batch_size=3)
    assert (len(summary.skipped), len(summary.failed)) == (4, 1)
    assert {(kind, number) for _, kind, number, *_ in reads(counted)} == {(RAISES, 1)}, (
        "a failure is tried again"
    )
    assert essence(tmp_path / "out") == first
    counted.unlink()
    added = save(tmp_path / "new", [GOOD, GOOD])
    summary = stub_batch([], tmp_path / "out", retry_failed=True)
    assert len(summary.failed) == 1 and summary.done == 1
    summary = stub_batch([*files, *added], tmp_path / "out", retry_failed=True)
    assert summary.done == 1, "--retry-failed reads nothing new"
    page(GOOD, 1).save(files[1])  # repaired
    summary = stub_batch([], tmp_path / "out", retry_failed=True)
    assert len(summary.read) == 1 and not summary.failed and len(check_lines(tmp_path / "out")) == 5


def test_a_file_that_changed_is_read_again_and_lost_pages_leave_no_line(tmp_path, counted):
    file = pdf(tmp_path / "scan.pdf", [1, 2, 3])
    stub_batch([file], tmp_path / "out")
    pdf(tmp_path / "scan.pdf", [4, 5])
    summary = stub_batch([file], tmp_path / "out")
    assert len(summary.read) == 2
    assert [line["text"] for line in lines(tmp_path / "out")] != [] and len(lines(tmp_path / "out")) == 2
    assert summary.pending == 0


def test_chosen_pages_and_pages_that_do_not_exist(tmp_path, counted):
    file = pdf(tmp_path / "scan.pdf", range(1, 7))
    summary = stub_batch([f"{file}:2-3,5"], tmp_path / "out")
    assert summary.read == ["scan-p2", "scan-p3", "scan-p5"] and not summary.failed and not summary.pending
    summary = stub_batch([f"{file}:5-9", f"{file}:2"], tmp_path / "out")
    assert (summary.skipped, summary.read) == (["scan-p2", "scan-p5"], ["scan-p6"])
    (failed,) = summary.failed
    assert failed["page"] == 7 and "pages 7 to 9 do not exist, the file has 6 pages" in failed["error"]
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 nothing")
    summary = stub_batch([f"{tmp_path / 'bad.pdf'}:4-5"], tmp_path / "other")
    assert [each["page"] for each in summary.failed] == [1], "1 for a file that cannot be opened"
    summary = stub_batch([f"{file}:9-"], tmp_path / "third")
    assert "page 9 does not exist" in summary.failed[0]["error"]


def test_frames_of_a_tiff_and_pages_of_unequal_shape(tmp_path, counted):
    first, *rest = (page(GOOD, i, (60, 80)) for i in range(5))
    first.save(tmp_path / "frames.tif", save_all=True, append_images=rest)
    summary = stub_batch([tmp_path / "frames.tif"], tmp_path / "out", batch_size=2)
    assert len(summary.read) == 5 and len(check_lines(tmp_path / "out")) == 5


def test_a_page_is_on_the_disk_before_the_next_ones_are_read(tmp_path, counted):
    """Nothing waits for the end: when a page is counted, its folder and its row are complete."""
    there = []

    class Watching(Progress):
        def page(self, outcome, file="", page=0, **more):
            super().page(outcome, file, page, **more)
            there.append((tmp_path / "out" / Path(file).stem / "result.json").exists())

    stub_batch(save(tmp_path / "in", [GOOD] * 6), tmp_path / "out", progress=Watching())
    assert there == [True] * 6


# ------------------------------------------------------------------ names
def test_names_of_folders_do_not_depend_on_the_order_of_completion(tmp_path):
    out = tmp_path / "out"
    names = ["x/a.png", "y/A.png", "a.pdf", "a-p2.png", "b-p3.png", "b.pdf", "documents.png"]
    names += ["index.html.png", "...png", "pages.jsonl.pdf", "new\nline.png"]
    out.mkdir()
    with FolderLock(out):
        manifest = Manifest(out, ["documents", "index.html", "pages.jsonl"])
        given = [Source(str(tmp_path / name)) for name in names]
        manifest.register(given)
        folders = [manifest.folder(source.key, n) for source in given for n in (1, 2, 3)]
        manifest.close()
    low = [folder.lower() for folder in folders]
    assert len(set(low)) == len(low) and not {"documents", "index.html", "pages.jsonl"} & set(low)
    assert all("/" not in folder and "\n" not in folder and folder.strip(". ") for folder in folders)
    assert folders[:2] == ["a", "a-p2"] and folders[3] == "A-2" and folders[6] == "a-3"


# ------------------------------------------------------------------ the manifest
def test_a_lost_or_damaged_manifest_is_made_again_from_the_folders(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD] * 3)
    stub_batch(files, tmp_path / "out")
    before = essence(tmp_path / "out")
    for damage in (b"", b"SQLite format 3\0 and then nonsense" * 200, None):
        path = tmp_path / "out" / NAME
        path.unlink() if damage is None else path.write_bytes(damage)
        counted.unlink(missing_ok=True)
        summary = stub_batch(files, tmp_path / "out")
        assert (len(summary.skipped), reads(counted)) == (3, []), damage
        assert essence(tmp_path / "out") == before


def test_a_page_whose_run_ended_between_its_folder_and_its_row_is_kept(tmp_path, counted, monkeypatch):
    files = save(tmp_path / "in", [GOOD] * 3)
    real = Manifest.put

    def put(self, key, number, row):
        if key.endswith("0001.png"):
            raise KeyboardInterrupt
        real(self, key, number, row)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "put", put)
        assert stub_batch(files, tmp_path / "out").interrupted
    assert (tmp_path / "out" / "0001" / "result.json").exists()
    counted.unlink()
    summary = stub_batch(files, tmp_path / "out")
    assert {number for _, _, number, *_ in reads(counted)} == {2} and len(check_lines(tmp_path / "out")) == 3
    assert not summary.pending


def test_a_damaged_folder_is_written_again(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD] * 2)
    stub_batch(files, tmp_path / "out")
    for damage in ("", "{", "[" * 100_000, '{"files": ["../../etc/passwd"]}'):
        (tmp_path / "out" / "0001" / "result.json").write_text(damage)
        assert stub_batch(files, tmp_path / "out").read == ["0001"]


# ------------------------------------------------------------------ the output folder
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_disk_ends_the_run_and_a_rerun_finishes(tmp_path, counted, monkeypatch, number):
    files = save(tmp_path / "in", [GOOD] * 5)
    real, left = outcomes.write_results, [2]

    def write(*args, **how):
        if not left[0]:
            raise OSError(number, "No space left on device")
        left[0] -= 1
        return real(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(outcomes, "write_results", write)
        summary = stub_batch(files, tmp_path / "out")
    assert "run the same command again" in summary.stopped and summary.pending == 3 and not summary.failed
    assert len(check_lines(tmp_path / "out")) == 2
    summary = stub_batch(files, tmp_path / "out")
    assert len(summary.read) == 3 and len(summary.skipped) == 2 and not summary.stopped


def test_a_manifest_that_cannot_grow_ends_the_run_and_a_rerun_finishes(tmp_path, counted, monkeypatch):
    files = save(tmp_path / "in", [GOOD] * 40)
    real = Manifest.register

    def register(self, found):
        real(self, found)
        size = self.db.execute("pragma page_count").fetchone()[0]
        self.db.execute(f"pragma max_page_count = {size + 4}")  # SQLite's own "database or disk is full"

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "register", register)
        summary = stub_batch(files, tmp_path / "out")
    assert "full" in summary.stopped and 0 < len(summary.read) < 40
    summary = stub_batch(files, tmp_path / "out")
    assert not summary.stopped and len(check_lines(tmp_path / "out")) == 40


def test_a_result_that_cannot_be_written_is_the_failure_of_its_page(tmp_path, counted, monkeypatch):
    files = save(tmp_path / "in", [GOOD] * 3)
    real = outcomes.write_results

    def write(folder, *args, **how):
        if Path(folder).name == "0001":
            raise OSError(errno.ENAMETOOLONG, "File name too long")
        return real(folder, *args, **how)

    monkeypatch.setattr(outcomes, "write_results", write)
    summary = stub_batch(files, tmp_path / "out")
    assert summary.kinds == {"output": 1} and len(summary.read) == 2


def test_a_second_run_on_the_same_folder_refuses_in_one_line_or_waits(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD])
    (tmp_path / "out").mkdir()
    with FolderLock(tmp_path / "out"):
        with pytest.raises(Locked, match=r"another run \(process \d+\) is writing") as refused:
            stub_batch(files, tmp_path / "out")
        assert "\n" not in str(refused.value)
        done = []
        waiting = threading.Thread(target=lambda: done.append(stub_batch(files, tmp_path / "out", wait=True)))
        waiting.start()
        time.sleep(0.3)
        assert not done and not reads(counted)
    waiting.join(30)
    assert len(done[0].read) == 1


# ------------------------------------------------------------------ cache
def test_the_cache_serves_equal_pages_of_other_files_runs_and_folders(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD, LOOPS, RAISES])
    store = tmp_path / "cache"
    stub_batch(files, tmp_path / "one", cache=store)
    for file in files:
        shutil.copy(file, file.with_name("copy_" + file.name))
    counted.unlink()
    copies = sorted((tmp_path / "in").glob("copy_*"))
    summary = stub_batch(copies, tmp_path / "two", cache=store)
    assert len(summary.cached) == 2 and {kind for _, kind, *_ in reads(counted)} == {RAISES}
    texts = [[line.get("text") for line in lines(tmp_path / name)] for name in ("one", "two")]
    assert texts[0] == texts[1]
    for entry in store.rglob("*.json"):
        entry.write_text(entry.read_text().replace('"key"', '"yek"'))
    assert not stub_batch(copies, tmp_path / "three", cache=store).cached, "a damaged entry is a miss"
    (tmp_path / "file").write_text("")
    summary = stub_batch(files[:2], tmp_path / "four", cache=tmp_path / "file")
    assert len(summary.read) == 2, "a cache that cannot be written costs no page"


# ------------------------------------------------------------------ what a run tells
def test_the_log_and_the_figures(tmp_path, counted):
    files = save(tmp_path / "in", [GOOD, RAISES, GOOD])
    log, metrics = tmp_path / "log.jsonl", tmp_path / "run.prom"
    stub_batch(files, tmp_path / "out", progress=Progress(log=log, metrics=metrics))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [each["event"] for each in events] == ["start", "read", "failed", "read", "end"]
    assert events[0]["pages"] == 3 and events[2]["kind"] == "reading" and events[-1]["counts"]["read"] == 2
    figures = dict(
        line.rsplit(" ", 1) for line in metrics.read_text().splitlines() if not line.startswith("#")
    )
    assert figures['deskocr_batch_pages_total{outcome="read"}'] == "2"
    assert figures['deskocr_batch_failures_total{kind="reading"}'] == "1"
    assert figures["deskocr_batch_pages_pending"] == "0"


def test_a_line_of_progress_has_rates_time_left_and_failures_by_class(capsys):
    progress = Progress(quiet=False, every=0)
    progress.expect(10)
    progress.page("read", "a", 1, tokens=30)
    progress.page("failed", "b", 1, kind="file")
    line = capsys.readouterr().err.splitlines()[-1]
    assert (
        line.startswith("2/10 pages, ") and "tokens/s, 1 failed (file 1), about " in line and " left" in line
    )
    progress.say("error: \x1b[2J gone")
    assert "\x1b" not in capsys.readouterr().err


def test_memory_of_the_queues_is_bounded(tmp_path, counted, monkeypatch):
    """No stage runs ahead: at most a few pages are decoded and not yet written."""
    alive, most = [0], [0]
    real, write = Preparer.prepare, writers.Writer.take

    def opened(*args):
        alive[0] += 1
        most[0] = max(most[0], alive[0])
        return real(*args)

    def taken(self, event):
        write(self, event)
        if isinstance(event, tuple):
            alive[0] -= 1

    monkeypatch.setattr(Preparer, "prepare", opened)
    monkeypatch.setattr(writers.Writer, "take", taken)
    monkeypatch.setenv("STUB_SECONDS", "0.002")
    stub_batch(save(tmp_path / "in", [GOOD] * 60), tmp_path / "out", batch_size=2, workers=2)
    assert most[0] <= 24


def test_manifest_errors_are_one_line(tmp_path, counted, monkeypatch):
    def register(self, found):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Manifest, "register", register)
    summary = stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out")
    assert "disk I/O error" in summary.stopped and "\n" not in summary.stopped
