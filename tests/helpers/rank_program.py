"""What a process of a parallel model runs in tests: `python -m tests.helpers.rank_program CASE FOLDER`.

launch.launch starts it once per rank. Rank 0 leaves its results in FOLDER/results.pt.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from model import DeepseekOCRForCausalLM  # noqa: F401 (imported before the clock of a case starts)
from model.parallel import pipeline, tensor
from model.parallel.group import Processes
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import NANO

TEXT = {"input_ids": torch.tensor([[0, 7, 9, 11, 30]])}
HOW = {"max_new_tokens": 16, "no_repeat_ngram_size": 3, "return_logprobs": True, "eos_token_id": None}


def folders(made: Path) -> dict[str, Path]:
    """{name: checkpoint} that all cases use; `made` holds a tiny one of each model."""
    return {"golden": CHECKPOINT, "nano": NANO, **{name: made / name for name in NAMES}}


def prompt(name: str) -> dict:
    """The arguments of `generate` for a checkpoint: with a page if it is a tiny one."""
    return batch(tiny(name), [[(1, 1)], []], seed=2) if name in NAMES else TEXT


def several(folder: Path) -> list[dict]:
    """Jobs of different lengths for a pipeline, one of which cannot be done."""
    short = {**HOW, "return_logprobs": False}
    del short["return_logprobs"]
    jobs = [{"input_ids": torch.tensor([[0, 5 + i, 9, 30 + i]]), **short, "max_new_tokens": 3 + 4 * i} for i in range(6)]
    jobs[2] |= {"max_new_tokens": 0}
    return jobs


def compute(kind: str, made: Path, group: Processes) -> dict:
    results = {}
    for name, folder in folders(made).items():
        load = tensor.load if kind == "tensor" else pipeline.load
        model = load(folder, torch.float32, group=group)
        if kind == "tensor":
            with torch.no_grad():
                logits = model(**TEXT).logits
            results[name] = (logits, *model.generate(**prompt(name), **HOW))
        elif group.rank:
            model.follow()
        else:
            results[name] = (*model.generate(**prompt(name), **HOW), *stream(model))
            model.stop()
    return results


def stream(model) -> tuple[dict]:
    jobs = [lambda job=job: job for job in several(CHECKPOINT)]
    made = dict(model.generate_many(jobs, 3))
    return ({index: repr(each) if isinstance(each, Exception) else each for index, each in made.items()},)


def main(case: str, folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    if case == "dies" and rank == 1:
        os.kill(os.getpid(), 9)
    group = Processes(torch.device("cpu"))
    if case == "raises" and rank == 1:
        raise SystemExit("error: rank 1 of 2: the card is on fire")
    if case == "hangs" and rank == 1:
        time.sleep(60)
    results = {}
    for kind in ("tensor", "pipeline") if case == "both" else ("tensor",):
        results[kind] = compute(kind, folder, group)
    if rank == 0:
        torch.save(results, folder / "results.pt")
    group.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
