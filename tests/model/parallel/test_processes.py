"""Two processes that gloo connects: started once for all default cases."""

from __future__ import annotations

import sys
import time

import pytest
import torch

from model import DeepseekOCRForCausalLM
from model.parallel import launch
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import NANO, ROOT
from tests.helpers.rank_program import HOW, TEXT, prepare, several

EVERY = ["golden", "nano", *NAMES]


def make(folder):
    """The checkpoints and prompts of all cases: text for two, a page and padding for each of the family."""
    jobs = {"golden": (CHECKPOINT, TEXT), "nano": (NANO, TEXT)}
    for name in NAMES:
        model = DeepseekOCRForCausalLM.random(tiny(name), seed=3)
        model.save_pretrained(folder / name)
        jobs[name] = (folder / name, batch(model.config, [[(1, 1)], []], seed=2))
    prepare(folder, jobs)
    return jobs


def start(case, folder, monkeypatch, **variables):
    for name, value in {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}.items():
        monkeypatch.setenv(name, value)
    return launch.launch(2, [sys.executable, "-m", "tests.helpers.rank_program", case, str(folder)])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The jobs, and {kind: {name: results of rank 0}}, from one start of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = make(folder)
    with pytest.MonkeyPatch.context() as patch:
        assert start("both", folder, patch) == 0
    return jobs, torch.load(folder / "results.pt")


@pytest.mark.parametrize("name", EVERY)
def test_two_processes_have_the_logits_and_tokens_of_one(name, found):
    jobs, results = found
    checkpoint, given = jobs[name]
    model = DeepseekOCRForCausalLM.from_pretrained(checkpoint, torch.float32)
    with torch.no_grad():
        whole = model(**TEXT).logits
    ids, scores = model.generate(**given, **HOW)
    logits, *tensor_parallel = results["tensor"][name]
    assert (logits - whole).abs().max() < 1e-4
    for other, others in (tensor_parallel, results["pipeline"][name][:2]):
        assert other.equal(ids)
        assert (others - scores).abs().max() < 1e-4


def test_several_pages_under_way_have_the_tokens_of_each_alone(found, golden_model):
    """Of different lengths, so that slots become free in another order; one job cannot be done."""
    outcomes = found[1]["pipeline"]["golden"][2]
    jobs = several()
    assert sorted(outcomes) == list(range(len(jobs)))
    for index, job in enumerate(jobs):
        if index == 2:
            assert outcomes[index].startswith("ValueError") and "max_new_tokens 0" in outcomes[index]
            continue
        ids, scores = golden_model.generate(**job, return_logprobs=True)
        assert outcomes[index][0].equal(ids)
        assert (outcomes[index][1] - scores).abs().max() < 1e-4


@pytest.mark.slow  # each starts two processes
@pytest.mark.parametrize(
    ("case", "status", "said"),
    [
        ("raises", 1, "error: rank 1 of 2: the card is on fire"),
        ("dies", 137, "error: rank 1 of 2 was ended by SIGKILL; the system may have run out of memory"),
    ],
)
def test_a_rank_that_fails_ends_all_with_one_message(case, status, said, tmp_path, monkeypatch, capfd):
    make(tmp_path)
    began = time.monotonic()
    assert start(case, tmp_path, monkeypatch) == status
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert lines == [said]
    assert time.monotonic() - began < 300


@pytest.mark.slow  # waits for a time limit
def test_a_rank_that_does_not_answer_ends_all(tmp_path, monkeypatch, capfd):
    make(tmp_path)
    began = time.monotonic()
    assert start("hangs", tmp_path, monkeypatch, DESKOCR_RANKS_TIMEOUT="3") == 1
    assert (
        "rank 0 of 2: another process of this model has ended, or has not answered for 3 s"
        in capfd.readouterr().err
    )
    assert time.monotonic() - began < 300  # rank 1 sleeps for 600 s
