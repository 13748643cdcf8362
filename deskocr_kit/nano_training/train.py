"""Train the nano checkpoint: `python -m deskocr_kit.nano_training.train`.

Resumes from its newest state; model/nano/README.md tells how nano was made.

recipe.py    sizes, stages, rates      batches.py   pages as tensors
trainee.py   network and losses        muon.py      the optimiser of the matrices
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor

import model
from model import DeepseekOCRForCausalLM

from ..synthetic_pages.render import render
from .batches import make_batch
from .muon import Muon
from .recipe import Recipe, rate_at, style_at
from .trainee import Trainee

NANO = Path(model.__file__).parent / "nano"


def average_gradients(parameters: Sequence[Tensor], world: int) -> None:
    if world == 1:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= world
    start = 0
    for p in parameters:
        if p.grad is None:
            continue
        p.grad = flat[start : start + p.numel()].view_as(p).clone()
        start += p.numel()


def make_optimisers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for the rest; a group's `share` is its part of the stage's rate."""
    tables = ("embed", "lm_head", "rel_pos", "places", "mlp.gate.", "newline", "seperator")
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in trainee.named_parameters():
        outside = p.dim() == 1 or (any(word in name for word in tables) and "patch_embed.proj" not in name)
        (rest if outside else matrices).append(p)
    return [
        Muon([{"params": matrices, "share": 1.0}], lr=0.0, weight_decay=0.01),
        torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.dim() > 1], "weight_decay": 0.01, "share": 0.6},
                {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0, "share": 0.6},
            ],
            lr=0.0,
            betas=(0.9, 0.98),
        ),
    ]


def train(rank: int, world: int, r: Recipe, run: Path, minutes: float, start: Path | None = None) -> None:
    """Train until `r.steps` or for `minutes`; state in `run`, log lines in run/log.jsonl.

    A run without a state begins with the weights of the checkpoint `start`, at the last head stage: the extra
    head is not in the checkpoint and is learned again first.
    """
    torch.set_num_threads(1)
    if world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ.get("MASTER_PORT", "29511"))
        dist.init_process_group("gloo", rank=rank, world_size=world)
    trainee = Trainee(r.seed)
    parameters: list[Tensor] = [p for p in trainee.parameters() if p.requires_grad]
    optimisers = make_optimisers(trainee)
    state, step, since = run / "state.pt", 0, 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        trainee.load_state_dict(saved["model"])
        for optimiser, stored in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        step, since = saved["step"], saved["since"]
    elif start is not None:
        weights = DeepseekOCRForCausalLM.from_pretrained(start, torch.float32).state_dict()
        trainee.ocr.load_state_dict(weights)
        step = max(begin for begin, stage in r.begins() if stage.task == "head")
        if rank == 0 and (start / "training_log.jsonl").exists():
            shutil.copy(start / "training_log.jsonl", run / "log.jsonl")  # one log from the first step on
    average = [p.detach().clone() for p in parameters]
    if state.exists():
        named = saved["average"]
        average = [named[name].clone() for name, p in trainee.named_parameters() if p.requires_grad]

    def snapshot() -> dict:
        """The weights, their running mean, and the step."""
        names = [name for name, p in trainee.named_parameters() if p.requires_grad]
        mean = {**trainee.state_dict(), **dict(zip(names, average, strict=True))}
        return {"model": trainee.state_dict(), "average": mean, "step": step}

    began = last_saved = time.time()
    while step < r.steps and time.time() - began < 60 * minutes:
        rng = random.Random(f"{r.seed}/{step}/{rank}")
        shared = random.Random(f"{r.seed}/{step}")  # the same on every rank
        stage = r.stage(step)[0]
        task, boxes = stage.task, shared.random() < stage.boxes
        style = style_at(r, step)
        if boxes:
            style = replace(style, lines=(1, stage.box_lines))
        full = replace(style, lines=(4, style.lines[1]), full=0.75)
        crowded = boxes and stage.box_lines > 4  # long answers as it is
        styles = [full if rng.random() < stage.dense and not crowded else style for _ in range(stage.batch)]
        batch = make_batch([render(rng, style) for style in styles], boxes, stage.digits)
        rate = rate_at(r, step)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
        if shared.random() < stage.bf16:
            rounded = {name: p.bfloat16() for name, p in trainee.named_parameters()}
            where, edges, says, balance = torch.func.functional_call(trainee, rounded, (batch, task))
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                where, edges, says, balance = trainee(batch, task)
        loss = (0.3 if task == "both" else 1.0) * where + 0.4 * edges + says + 0.01 * balance
        trainee.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters, world)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not math.isfinite(norm.item()):
            raise FloatingPointError(f"step {step}: gradient norm {norm.item()}")
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        since += 1
        with torch.no_grad():
            keep = min(r.average, since / (since + 10))
            torch._foreach_lerp_(average, parameters, 1 - keep)
        if rank == 0 and (step % 25 == 0 or step == 1):
            row = {
                "step": step,
                "seconds": round(time.time() - began, 1),
                "task": "boxes" if boxes else task,
                "rate": round(rate, 7),
                "where": round(where.item(), 4),
                "edges": round(edges.item(), 4),
                "says": round(says.item(), 4),
                "balance": round(balance.item(), 3),
                "norm": round(norm.item(), 2),
            }
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
        if rank == 0 and step == stage.until and stage.falls:  # export takes the mean of the last ones
            torch.save(snapshot(), run / f"end_{step:06}.pt")
        if rank == 0 and (time.time() - last_saved > 120 or step == r.steps):
            part = state.with_suffix(".part")
            stored = [optimiser.state_dict() for optimiser in optimisers]
            torch.save({**snapshot(), "optimisers": stored, "since": since}, part)
            os.replace(part, state)
            last_saved = time.time()
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=NANO / "runs" / "default", help="folder for state and log"
    )
    parser.add_argument(
        "--start", type=Path, help="checkpoint folder to start a new run from, for example model/nano"
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--processes", type=int, default=2, help="one thread each; gradients are averaged")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so long; run again to go on"
    )
    args = parser.parse_args()
    recipe = Recipe(seed=args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    if args.processes == 1:
        train(0, 1, recipe, args.run, args.minutes, args.start)
    else:
        work = (args.processes, recipe, args.run, args.minutes, args.start)
        torch.multiprocessing.spawn(train, work, nprocs=args.processes)


if __name__ == "__main__":
    main()
