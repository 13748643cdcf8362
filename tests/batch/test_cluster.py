"""A run on a cluster leaves what a single process leaves, whatever the cluster loses; without Ray."""

from __future__ import annotations

import pickle

import pytest

from deskocr_kit.batch import ray_data, ray_session, stages
from deskocr_kit.batch.attempts import BatchSize
from deskocr_kit.batch.cluster import Content, FilePart, Stop
from deskocr_kit.batch.dry_run import estimate
from deskocr_kit.batch.faults import CannotContinue, Fault
from deskocr_kit.batch.manifest import Stored
from deskocr_kit.batch.run import Plan
from deskocr_kit.batch.sources import Source, sources
from deskocr_kit.reading.options import PageOptions
from tests.helpers.batches import check_lines, essence, lines, stub_batch
from tests.helpers.in_process_cluster import InProcessCluster, Views
from tests.helpers.mixed_pages import mixed
from tests.helpers.stub_reader import GOOD, RAISES, load, page, reads, save


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return mixed(tmp_path_factory.mktemp("in"), 24)


@pytest.fixture(scope="module")
def single(files, tmp_path_factory):
    """What one process leaves."""
    out = tmp_path_factory.mktemp("single")
    stub_batch(files, out, batch_size=2, formats=("md",))
    return out


def same(out, single) -> bool:
    check_lines(out)
    texts = [{p.name: p.read_bytes() for p in (each / "documents").iterdir()} for each in (out, single)]
    return essence(out) == essence(single) and texts[0] == texts[1]


def test_a_cluster_leaves_what_a_single_process_leaves(files, single, tmp_path):
    cluster = InProcessCluster()
    summary = stub_batch(files, tmp_path, devices=[cluster], batch_size=2, formats=("md",))
    assert same(tmp_path, single) and cluster.rounds == 1
    assert len(summary.read) == sum(summary.devices.values()) and summary.kinds == {"file": 3, "reading": 1}


@pytest.mark.parametrize("seed", range(4))
def test_rows_that_get_lost_or_arrive_twice_change_nothing(files, single, tmp_path, seed):
    cluster = InProcessCluster(loses=0.3, repeats=0.3, seed=seed)
    summary = stub_batch(files, tmp_path, devices=[cluster], batch_size=2, formats=("md",))
    assert same(tmp_path, single) and cluster.rounds == 2 and not summary.pending
    assert len(summary.read) + len(summary.failed) + len(summary.skipped) == 24, "each page counts once"


def test_a_run_continues_with_another_engine(files, single, tmp_path, monkeypatch):
    half = files[: len(files) // 2]
    stub_batch(half, tmp_path, batch_size=2)
    monkeypatch.setenv("STUB_READS", str(tmp_path.parent / "reads.txt"))
    summary = stub_batch(files, tmp_path, devices=[InProcessCluster()], batch_size=2, formats=("md",))
    assert same(tmp_path, single) and len(summary.skipped) > 5
    again = stub_batch(files, tmp_path, batch_size=2, formats=("md",))
    assert not again.read and same(tmp_path, single)


def test_pages_of_changed_content_are_read_again_and_found_folders_are_kept(tmp_path):
    files = save(tmp_path / "in", [GOOD, GOOD, GOOD])
    stub_batch(files, tmp_path / "out")
    page(GOOD, 9).save(files[1])
    (tmp_path / "out" / "manifest.sqlite").unlink()  # it is made again from the folders
    summary = stub_batch(files, tmp_path / "out", devices=[InProcessCluster()])
    assert (len(summary.read), len(summary.skipped)) == (1, 2)
    assert [line["text"] for line in lines(tmp_path / "out")] == ["page 0", "page 9", "page 2"]


class Breaks(Views):
    """A device that cannot be used `times` times."""

    def __init__(self, times):
        super().__init__(load(), PageOptions())
        self.times, self.fruitless = times, 9

    def read(self, items, guard=None):
        self.times -= 1
        if self.times >= 0:
            raise CannotContinue("the card has fallen off the bus")
        return super().read(items, guard)


def test_the_pages_of_a_lost_device_are_read_in_the_next_round(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "PAUSE", 0)
    files = save(tmp_path / "in", [GOOD] * 9)
    cluster = InProcessCluster(device=lambda times=[2, 0]: Breaks(times.pop(0)))
    summary = stub_batch(files, tmp_path / "out", devices=[cluster])
    assert len(summary.read) == 9 and cluster.rounds == 2 and not summary.stopped


def test_without_any_device_the_run_ends_and_its_pages_stay_pending(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "PAUSE", 0)
    files = save(tmp_path / "in", [GOOD] * 4)
    summary = stub_batch(files, tmp_path / "out", devices=[InProcessCluster(device=lambda: Breaks(99))])
    assert "fallen off the bus" in summary.stopped and summary.pending == 4 and not summary.failed


def test_a_machine_without_the_output_folder_ends_the_run_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "SHARED", 0)
    monkeypatch.setattr(stages, "holder", lambda out: "process 1 of another machine")
    summary = stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out", devices=[InProcessCluster()])
    assert "folder that all machines of the cluster share" in summary.stopped and summary.pending == 1


def test_a_machine_without_the_folder_of_the_pages_ends_the_run_in_one_line(tmp_path):
    part = FilePart(Source(str(tmp_path / "nowhere" / "a.png")), "a", (0, 0, "", None), {}, here=True)
    with pytest.raises(CannotContinue, match="nowhere: there is no such folder on"):
        stages._check_folder(part)


def test_an_error_of_this_program_is_raised_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "Decoder", None)
    with pytest.raises(RuntimeError, match="(?s)Traceback.*stages.py.*NoneType"):
        stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out", devices=[InProcessCluster()])


def test_a_disk_that_is_full_on_a_machine_ends_the_run(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deskocr_kit.batch.outcome.write_results", full)
    summary = stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out", devices=[InProcessCluster()])
    assert "No space left" in summary.stopped and summary.pending == 1


def test_a_dry_run_reads_its_sample_with_one_worker(tmp_path):
    files = sources(map(str, save(tmp_path / "in", [GOOD] * 6)))
    found = estimate(files, [InProcessCluster()], PageOptions(), Plan())
    alone = estimate(files, [Views(load(), PageOptions())], PageOptions(), Plan())
    assert found.pages == 6 and found.sample == alone.sample and found.seconds is not None


def test_the_cache_is_used_on_every_machine(tmp_path, monkeypatch):
    files = save(tmp_path / "in", [GOOD, GOOD, RAISES])
    monkeypatch.setenv("STUB_READS", str(tmp_path / "reads.txt"))
    for out in ("first", "second"):
        summary = stub_batch(files, tmp_path / out, devices=[InProcessCluster()], cache=tmp_path / "cache")
    assert len(summary.cached) == 2 and essence(tmp_path / "first") == essence(tmp_path / "second")
    assert len(reads(tmp_path / "reads.txt")) == 4 + 2, "only the page that fails is read again"


def test_what_a_file_contains_goes_before_the_outcomes_of_its_pages(tmp_path):
    """Rows overtake each other; content that arrived after an outcome would make the page pending again."""
    files = mixed(tmp_path / "in", 24)
    rows = []

    class Looks(InProcessCluster):
        def sent(self, found):
            return super().sent([each for each in found if rows.append(each) is None])

    stub_batch(files, tmp_path / "out", devices=[Looks()])
    pages = [row for row in rows if isinstance(row, stages.Row) and row.item is not None]
    assert pages and all(
        any(isinstance(event, Content) and event.key == row.item.key for event in row.events) for row in pages
    )


def test_rows_pass_through_pickles():
    fault = pickle.loads(pickle.dumps(Fault("device", "507035")))
    assert (fault.kind, str(fault)) == ("device", "507035")
    assert not Stop("text").program and Stored() == pickle.loads(pickle.dumps(Stored()))
    assert BatchSize(4).size == 4


def test_the_settings_of_this_machine_are_not_those_of_another(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "KIT", "0.0.1")
    summary = stub_batch(save(tmp_path / "in", [GOOD]), tmp_path / "out", devices=[InProcessCluster()])
    assert "has deskocr-kit 0.0.1, the main process" in summary.stopped


# ---------------------------------------------------------------------- Ray's resources
@pytest.mark.parametrize(
    "device, found, expected",
    [
        ("npu", {"NPU": 8, "CPU": 64}, 8),
        ("cuda", {"GPU": 4, "CPU": 32}, 4),
        ("cpu", {"CPU": 8}, 1),
        ("npu-sim:as-believed", {"CPU": 8}, 1),
    ],
)
def test_there_is_one_worker_per_device(device, found, expected):
    assert ray_session.count_workers(device, 0, found, nodes=1) == expected
    assert ray_session.chosen(found) in (device, "cpu")


@pytest.mark.parametrize(
    "device, wanted, found, text",
    [
        ("npu", 0, {"CPU": 64}, "has no NPU for --device npu, it has 0 NPU, 0 GPU, 64 CPU"),
        ("npu", 9, {"NPU": 8, "CPU": 64}, "ask for 8 or fewer"),
        ("cpu", 2, {"CPU": 2}, "2 workers need 3 CPUs of the Ray cluster, one of them to decode pages"),
    ],
)
def test_a_cluster_that_is_too_small_is_refused(device, wanted, found, text):
    with pytest.raises(CannotContinue, match=text):
        ray_session.count_workers(device, wanted, found, nodes=1)


def test_an_actor_reserves_the_card_of_its_device(monkeypatch):
    assert ray_session.resources("npu") == {"num_cpus": 1, "resources": {"NPU": 1}}
    assert ray_session.resources("cuda") == {"num_cpus": 1, "num_gpus": 1}
    assert ray_session.resources("cpu") == ray_session.resources("npu-sim:as-believed") == {"num_cpus": 1}
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "5")
    assert stages.worker_name("npu").startswith("npu (card 5 of ")
    monkeypatch.setenv("DESKOCR_DEVICE", "npu:3")
    assert ray_session.chosen({"CPU": 4}) == "npu"


def test_without_ray_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(ray_data, "is_installed", lambda: False)
    with pytest.raises(CannotContinue, match=r"needs Ray Data: pip install -e \"\.\[ray\]\""):
        ray_data.RayCluster(load, "cpu", PageOptions())
