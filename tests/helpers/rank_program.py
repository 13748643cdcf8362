"""What a process of a parallel model runs in tests: `python -m tests.helpers.rank_program CASE FOLDER`.

launch.launch starts it once per rank. FOLDER/jobs.pt has the checkpoints and prompts, made by `prepare`;
rank 0 leaves its results in FOLDER/results.pt. Nothing else is imported: each process pays for it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch

from model.parallel import pipeline, tensor
from model.parallel.group import Processes, RanksLost
from model.parallel.launch import GRACE

TEXT = {"input_ids": torch.tensor([[0, 7, 9, 11, 30]])}
HOW = {"max_new_tokens": 16, "no_repeat_ngram_size": 3, "return_logprobs": True, "eos_token_id": None}


def several() -> list[dict]:
    """Jobs of different lengths for a pipeline, one of which cannot be done."""
    how = {name: value for name, value in HOW.items() if name != "return_logprobs"}
    jobs = [
        {"input_ids": torch.tensor([[0, 5 + i, 9, 30 + i]]), **how, "max_new_tokens": 3 + 4 * i}
        for i in range(6)
    ]
    jobs[2] |= {"max_new_tokens": 0}
    return jobs


def prepare(folder: Path, jobs: dict[str, tuple[Path, dict]]) -> None:
    """jobs: {name: (checkpoint, arguments of `generate`)}."""
    torch.save({name: (str(path), given) for name, (path, given) in jobs.items()}, folder / "jobs.pt")


def compute(kind: str, folder: Path, group: Processes) -> dict:
    results = {}
    for name, (checkpoint, given) in torch.load(folder / "jobs.pt").items():
        if kind == "tensor":
            model = tensor.load(checkpoint, torch.float32, group=group)
            with torch.no_grad():
                logits = model(**TEXT).logits
            results[name] = (logits, *model.generate(**given, **HOW))
            continue
        stage = pipeline.load(checkpoint, torch.float32, group=group)
        if group.rank:
            stage.follow()
        else:
            results[name] = (*stage.generate(**given, **HOW), many(stage) if name == "golden" else {})
            stage.stop()
    return results


def many(stage: pipeline.PipelineParallel) -> dict:
    made = dict(stage.generate_many([lambda job=job: job for job in several()], 3))
    return {index: repr(each) if isinstance(each, Exception) else each for index, each in made.items()}


def main(case: str, folder: Path) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    if case == "dies" and rank == 1:
        os.kill(os.getpid(), 9)
    group = Processes(torch.device("cpu"))
    if case == "raises" and rank == 1:
        raise SystemExit("error: rank 1 of 2: the card is on fire")
    if case == "hangs" and rank == 1:
        time.sleep(600)
    results = {kind: compute(kind, folder, group) for kind in ("tensor", "pipeline")}
    if rank == 0:
        torch.save(results, folder / "results.pt")
    group.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except RanksLost as error:  # as commands/ranks.py does
        time.sleep(GRACE)
        sys.exit(f"error: {error}")
