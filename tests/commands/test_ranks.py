"""`deskocr ocr --tensor-parallel` and `--pipeline-parallel`: usage, and the whole command in processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.commands import ocr, ranks
from deskocr_kit.reading.ocr_options import OcrOptions
from deskocr_kit.reading.reader import Reader
from model import NonFiniteError
from tests.helpers.paths import NANO, ROOT

PAGES = [str(path) for path in sorted((NANO / "pages").glob("*.png"))[:3]]
READ = ["--model", "nano", "--device", "cpu", "--dtype", "fp32", "--max-tokens", "20"]
RANK_1 = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
RANK_0 = {**RANK_1, "RANK": "0", "LOCAL_RANK": "0"}


def ask(*words, **variables):
    return CliRunner().invoke(app, ["ocr", PAGES[0], *READ, *words], env=variables, catch_exceptions=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pipeline-parallel", "3"], "--pipeline-parallel 3: there are two stages"),
        (["--tensor-parallel", "2", "--pipeline-parallel", "2"], "cannot be combined"),
    ],
)
def test_options_that_do_not_fit(words, said):
    done = ask(*words)
    assert done.exit_code == 2 and said in done.output


def test_another_number_of_processes_than_the_option_says():
    done = ask("--tensor-parallel", "4", **RANK_0)
    assert "--tensor-parallel 4, but 2 processes were started; give torchrun --nproc-per-node 4" in str(
        done.exception
    )


def test_torchrun_without_the_option_would_read_every_page_twice():
    done = ask(**RANK_0, TORCHELASTIC_RUN_ID="x")
    assert "torchrun started 2 processes" in str(done.exception) and "Add --tensor-parallel 2" in str(
        done.exception
    )


def test_variables_of_a_cluster_without_the_option_change_nothing(monkeypatch):
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    ranks.start(OcrOptions())
    with pytest.raises(ValueError, match="^as it is$"), ranks.one_message(OcrOptions()):
        raise ValueError("as it is")


@pytest.mark.parametrize("torchrun", [False, True])
def test_another_rank_says_its_number_and_under_torchrun_waits_for_rank_0(torchrun, monkeypatch):
    waited = []
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr(ranks.time, "sleep", waited.append)
    for name, value in RANK_1.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(ChildProcessError, match="^rank 1 of 2: no room$"),
        ranks.one_message(OcrOptions(tensor_parallel=2)),
    ):
        raise ValueError("no room")
    assert waited == [ranks.GRACE] * torchrun


def test_a_rank_that_lost_another_one_waits_for_the_cause(monkeypatch):
    waited = []
    monkeypatch.setattr(ranks.time, "sleep", waited.append)
    for name, value in RANK_0.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConnectionError, match="^gone$"), ranks.one_message(OcrOptions(tensor_parallel=2)):
        raise ConnectionError("gone")
    assert waited == [ranks.GRACE]


def test_a_device_with_an_index_is_refused():
    with pytest.raises(
        ValueError, match="--device cuda:1: each process takes its own card; write --device cuda"
    ):
        ranks.device_of_rank("cuda:1")
    assert str(ranks.device_of_rank("cpu")) == "cpu"


class InFlight:
    """A model that has several pages under way; the second page of them fails."""

    def __init__(self, model):
        self.model = model
        self.idle = self.broken = False

    def __getattr__(self, name):
        return getattr(self.model, name)

    def generate_many(self, jobs):
        under_way = [(index, job()) for index, job in enumerate(jobs)]
        for index, given in reversed(under_way):  # the last ends first
            if index == 1:
                yield index, NonFiniteError("logits are NaN")
            else:
                yield index, self.model.generate(**given, return_logprobs=True)


def test_a_page_that_fails_in_the_pipeline_fails_alone_and_texts_keep_their_order(monkeypatch, tmp_path):
    @contextmanager
    def reader_of(options):
        reader = Reader.load(options)
        reader.model = InFlight(reader.model)
        yield reader

    monkeypatch.setattr(ocr, "reader_of", reader_of)
    (bad := tmp_path / "bad.png").write_bytes(b"not an image")
    words = ["ocr", PAGES[0], str(bad), PAGES[1], PAGES[2], *READ[:-1], "4", "--json"]
    done = CliRunner().invoke(app, words, env={"DESKOCR_DEBUG": ""})
    assert done.exit_code == 1
    records = json.loads(done.stdout[done.stdout.index("[") :])
    assert [each["file"] for each in records] == [PAGES[0], str(bad), PAGES[1], PAGES[2]]
    assert ["error" in each for each in records] == [False, True, True, False]
    assert "logits are NaN" in records[2]["error"] and records[0]["text"] != records[3]["text"]


def command(*words, start=(sys.executable, "-m", "deskocr_kit"), **variables):
    # No more time than a broken collective may take.
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DESKOCR_RANKS_TIMEOUT": "60",
        "TQDM_DISABLE": "1",
        **variables,
    }
    return subprocess.run(
        [*start, "ocr", *words], capture_output=True, text=True, env=env, timeout=300, cwd=ROOT
    )


@pytest.fixture(scope="module")
def alone():
    done = command(*PAGES, *READ, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def text(records):
    return [(each["file"], each["page"], each["text"], each["confidence"]) for each in records]


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "deskocr_kit")


@pytest.mark.slow  # each starts two processes
@pytest.mark.parametrize("how", ["--tensor-parallel", "--pipeline-parallel"])
@pytest.mark.parametrize(
    "start", [(sys.executable, "-m", "deskocr_kit"), TORCHRUN], ids=["plain", "torchrun"]
)
def test_the_result_of_one_process_once(how, start, alone):
    done = command(*PAGES, *READ, "--json", how, "2", start=start)
    assert done.returncode == 0, done.stderr
    assert text(json.loads(done.stdout)) == text(alone)
    assert "per token" in done.stderr and done.stderr.count("reading with nano") == 1


@pytest.mark.slow  # starts two processes
@pytest.mark.parametrize("how", ["--tensor-parallel", "--pipeline-parallel"])
def test_bad_pages_between_good_ones(how, alone, tmp_path):
    (bad := tmp_path / "bad.png").write_bytes(b"not an image")
    pages = [PAGES[0], str(bad), PAGES[1], PAGES[2], str(bad)]
    done = command(*pages, *READ, "--json", how, "2")
    records = json.loads(done.stdout)
    assert done.returncode == 1 and [each["file"] for each in records] == pages
    assert ["error" in each for each in records] == [False, True, False, False, True]
    assert text(each for each in records if "text" in each) == text(alone)


@pytest.mark.slow  # starts two processes
@pytest.mark.parametrize(
    ("ranks_", "said"), [("5", "nothing of this decoder divides by 5"), ("2", "no such folder")]
)
def test_an_error_that_all_ranks_see_is_said_once(ranks_, said, tmp_path):
    read = READ if ranks_ == "5" else [*READ, "--model", str(tmp_path / "absent")]
    done = command(PAGES[0], *read, "--tensor-parallel", ranks_)
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1 and said in errors[0], done.stderr


@pytest.mark.slow  # starts two processes
def test_streaming_and_results_on_disk_are_of_rank_0(tmp_path):
    done = command(PAGES[0], *READ, "--stream", "--tensor-parallel", "2", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    written = json.loads(next((tmp_path / "out").rglob("result.json")).read_text())
    assert written["text"].split()[0] in done.stdout
    assert len(list((tmp_path / "out").iterdir())) == 1
