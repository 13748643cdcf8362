"""Train the nano checkpoint: `python -m model.nano.train`. Resumes from its newest state; see README.md.

What learns when (`Recipe.stages`), because eyes and reader wait for each other otherwise:
  eyes   dense pages; an extra head predicts, per vision token, the characters in its cell, in reading order
  align  the eyes rest; the reader learns where on the page the next character stands
  both   both losses, while rows move away from the cell grid, fonts mix and dirt comes in
  head   the extra head alone, where a run goes on from a stored checkpoint
The extra head is not part of the stored checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from ..config import DeepseekOCRConfig
from ..modeling_deepseekocr import DeepseekOCRForCausalLM
from .muon import Muon
from .render import CELL, EASY, SIDE, WIDE, Page, Style, render
from .tokenizer import FIRST_BYTE, IMAGE_ID, SPECIAL, VOCAB

HERE = Path(__file__).parent
BOS, EOS, PAD = 0, 1, 2
CELLS = SIDE // CELL
PLACES = 9  # characters per cell that the extra head tells apart: the narrowest font at 26 px fits eight
CLASSES = 1 + 95 + 1  # nothing, printable ASCII, anything else
FREE, OCR = "\nFree OCR.", "\n<|grounding|>OCR this image."


def nano_config() -> DeepseekOCRConfig:
    """The same network, small. Position tables keep the official sizes, so every resize still happens."""
    return DeepseekOCRConfig(
        vision_config={
            "width": {
                "sam_vit_b": {
                    "width": 96,
                    "layers": 4,
                    "heads": 2,
                    "global_attn_indexes": [3],
                    "window_size": 8,
                    "neck_channels": 96,
                    "downsample_channels": [128, 160],
                },
                "clip-l-14-224": {"width": 160, "layers": 3, "heads": 5, "intermediate_size": 480},
            }
        },
        hidden_size=192,
        intermediate_size=512,
        moe_intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        n_routed_experts=8,
        n_shared_experts=2,
        num_experts_per_tok=2,
        vocab_size=VOCAB,
        image_token_id=IMAGE_ID,
        max_position_embeddings=8192,
    )


@dataclass(frozen=True)
class Stage:
    """Steps up to `until`. task: what learns; batch: pages per process; grown: domain, 0 EASY, 1 WIDE."""

    until: int
    task: str  # eyes | align | both | head
    batch: int
    rate: float
    grown: tuple[float, float] = (0.0, 0.0)  # at the first and the last step
    dense: float = 0.0  # share of pages that are full of text, beyond those that the style draws
    boxes: float = 0.0  # share of batches that ask for boxes
    falls: int = 0  # last steps, in which the rate falls to 2 %
    bf16: float = 0.0  # share of batches with everything in bf16, residuals too, as a bf16 model runs


@dataclass(frozen=True)
class Recipe:
    stages: tuple[Stage, ...] = (
        Stage(900, "eyes", 16, 1e-3),
        Stage(1450, "align", 8, 1e-3),
        Stage(2100, "both", 12, 5e-4, (0.0, 0.7)),
        Stage(2700, "eyes", 16, 1e-3, (1.0, 1.0)),
        Stage(2850, "both", 12, 6e-4, (1.0, 1.0)),
        Stage(3350, "align", 10, 1e-3, (1.0, 1.0)),
        Stage(4250, "both", 12, 6e-4, (1.0, 1.0), boxes=0.15, falls=550),
        Stage(4320, "head", 8, 1e-2, (1.0, 1.0), dense=1.0),
        Stage(8000, "both", 12, 1e-3, (1.0, 1.0), dense=0.75, boxes=0.1, falls=2400, bf16=0.3),
        Stage(8750, "both", 12, 4e-4, (1.0, 1.0), dense=0.6, boxes=0.1, falls=750, bf16=0.15),
    )
    warmup: int = 30
    seed: int = 1

    @property
    def steps(self) -> int:
        return self.stages[-1].until

    def begins(self) -> list[tuple[int, Stage]]:
        """Each stage with its first step."""
        return list(zip([0, *(stage.until for stage in self.stages)], self.stages, strict=False))

    def stage(self, step: int) -> tuple[Stage, int]:
        """The stage of a step, and the stage's first step."""
        for start, stage in self.begins():
            if step < stage.until:
                return stage, start
        raise ValueError(f"step {step} is beyond the recipe's {self.steps}")


def rate_at(r: Recipe, step: int) -> float:
    """Each stage's rate: reached in `warmup` steps, and falling at the end of the stages that say so."""
    stage, start = r.stage(step)
    up = min(1.0, (step - start + 1) / r.warmup)
    left = min(1.0, (stage.until - step) / stage.falls) if stage.falls else 1.0
    return stage.rate * up * (0.02 + 0.98 * left)


def style_at(r: Recipe, step: int) -> Style:
    """EASY, then a mixture that ends at WIDE. The eyes get dense pages: they learn from every character."""
    stage, start = r.stage(step)
    passed = (step - start) / (stage.until - start)
    grown = stage.grown[0] + passed * (stage.grown[1] - stage.grown[0])
    blend = lambda a, b: a + grown * (b - a)  # noqa: E731
    pair = lambda a, b: (round(blend(a[0], b[0])), round(blend(a[1], b[1])))  # noqa: E731
    dense = stage.task == "eyes"
    return Style(
        sizes=pair(EASY.sizes, WIDE.sizes),
        pitch=pair(EASY.pitch, WIDE.pitch),
        lines=EASY.lines if dense else pair(EASY.lines, WIDE.lines),
        free_top=0.15 + 0.85 * grown,
        margins=EASY.margins,
        mono=blend(EASY.mono, WIDE.mono),
        styled=WIDE.styled * grown,
        dirt=WIDE.dirt * grown,
        full=1.0 if dense else blend(EASY.full, WIDE.full),
    )


def encode(text: str) -> list[int]:
    """The same ids as the stored tokenizer gives: special tokens, else bytes."""
    ids, rest = [], text
    while rest:
        special = next((s for s in SPECIAL if rest.startswith(s)), None)
        if special:
            ids.append(IMAGE_ID + SPECIAL.index(special))
            rest = rest[len(special) :]
        else:
            ids.extend(FIRST_BYTE + byte for byte in rest[0].encode())
            rest = rest[1:]
    return ids


def answer(page: Page, boxes: bool) -> str:
    """What the model shall say: the lines, or each line with its box on a 0..999 scale, in the official
    format.
    """
    if not boxes:
        return page.text
    scale = lambda v: min(999, max(0, round(v / SIDE * 999)))  # noqa: E731
    return "\n".join(
        f"<|ref|>{line.text}<|/ref|><|det|>[[{', '.join(str(scale(v)) for v in line.box)}]]<|/det|>"
        for line in page.lines
    )


def place_labels(page: Page) -> list[int]:
    """For every cell, row-major, the classes of the characters whose centre lies in it: CELLS² * PLACES
    numbers.
    """
    places = [[0] * PLACES for _ in range(CELLS * CELLS)]
    filled = [0] * (CELLS * CELLS)
    for line in page.lines:
        row = min(CELLS - 1, max(0, int(line.middle // CELL)))
        for char, x in zip(line.text, line.centres, strict=True):
            cell = row * CELLS + min(CELLS - 1, max(0, int(x // CELL)))
            if filled[cell] < PLACES:
                places[cell][filled[cell]] = ord(char) - 31 if 32 <= ord(char) < 127 else CLASSES - 1
                filled[cell] += 1
    return [label for cell in places for label in cell]


def rel_pos_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """`slots.rel_pos_attention` without a separate (n, n) bias: it becomes 2s more columns of q and k.

    The query gets its scores against every key row and every key column, the key says which row and column it
    is, one-hot; their product is the bias.
    """
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    grid = q.view(b, h, s, s, d)
    bias_h = torch.einsum("bhijk,ixk->bhijx", grid, rel_h).reshape(b, h, n, s)
    bias_w = torch.einsum("bhijk,jyk->bhijy", grid, rel_w).reshape(b, h, n, s)
    eye = torch.eye(s, dtype=k.dtype, device=k.device)
    where = torch.cat((eye[:, None].expand(s, s, s), eye[None].expand(s, s, s)), dim=-1).view(n, 2 * s)
    k = torch.cat((k, where.expand(b, h, n, 2 * s)), dim=-1)
    return plain_attention(torch.cat((q * d**-0.5, bias_h, bias_w), dim=-1), k, v)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: None = None, causal: bool = False) -> Tensor:
    """`slots.attention` by `plain_attention`."""
    return plain_attention(q * q.shape[-1] ** -0.5, k, v, causal)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Two matrix products and a softmax, in bf16; q is scaled already.

    For training only. On the CPU, the backward pass of torch's fused attention takes several times as long.
    """
    with torch.autocast("cpu", enabled=False):
        scores = q.bfloat16() @ k.bfloat16().transpose(-1, -2)
        if causal:
            n = scores.shape[-1]
            scores = scores + torch.full((n, n), -1e4, dtype=scores.dtype).triu(1)
        return scores.softmax(-1) @ v.bfloat16()


@dataclass
class Batch:
    pixels: Tensor  # b 3 S S
    ids: Tensor  # b n
    targets: Tensor  # b n, -100 where nothing is asked
    places: Tensor  # b cells * places


def make_batch(pages: list[Page], boxes: bool) -> Batch:
    import numpy as np

    head = [BOS] + [IMAGE_ID] * (CELLS * (CELLS + 1) + 1) + encode(OCR if boxes else FREE)
    answers = [encode(answer(page, boxes)) + [EOS] for page in pages]
    width = len(head) + max(map(len, answers)) - 1
    ids = torch.full((len(pages), width), PAD)
    targets = torch.full((len(pages), width), -100)
    for i, text in enumerate(answers):
        ids[i, : len(head) + len(text) - 1] = torch.tensor(head + text[:-1])
        targets[i, len(head) - 1 : len(head) + len(text) - 1] = torch.tensor(text)
    pixels = torch.stack([torch.from_numpy(np.array(page.image)).permute(2, 0, 1) for page in pages])
    places = torch.tensor([place_labels(page) for page in pages])
    return Batch(pixels.float().div_(127.5).sub_(1.0), ids, targets, places)


class Trainee(nn.Module):
    """The network and the extra head."""

    def __init__(self, seed: int):
        super().__init__()
        self.ocr = DeepseekOCRForCausalLM.random(nano_config(), seed=seed).train()
        self.ocr.use_plan({"rel_pos_attention": rel_pos_attention, "attention": attention})
        # White paper drowns the ink otherwise: filters that ignore flat areas and answer with unit size to
        # strokes.
        with torch.no_grad():
            weight = self.ocr.model.sam_model.patch_embed.proj.weight
            weight -= weight.mean((1, 2, 3), keepdim=True)
            weight *= 1.5
        generator = torch.Generator().manual_seed(seed)
        width = self.ocr.config.decoder.width
        self.places = nn.Linear(width, PLACES * CLASSES)
        with torch.no_grad():
            self.places.weight.normal_(0, width**-0.5, generator=generator)
            self.places.bias.zero_()

    def forward(self, batch: Batch, task: str) -> tuple[Tensor, Tensor, Tensor]:
        """Losses: per place, per character, expert balance."""
        m = self.ocr.model
        with torch.set_grad_enabled(task in ("eyes", "both")):
            features = m.see(batch.pixels)  # b cells d
        with torch.set_grad_enabled(task != "align"):
            where = F.cross_entropy(self.places(features).view(-1, CLASSES).float(), batch.places.view(-1))
        if task in ("eyes", "head"):
            return where, where.new_zeros(()), where.new_zeros(())
        b, _, d = features.shape
        rows = features.view(b, CELLS, CELLS, d)
        rows = torch.cat((rows, m.image_newline.expand(b, CELLS, 1, d)), dim=2).flatten(1, 2)
        vision = torch.cat((rows, m.view_seperator.expand(b, 1, d)), dim=1)  # b 73 d
        text = m.embed_tokens(batch.ids)
        embeds = torch.cat((text[:, :1], vision.to(text.dtype), text[:, 1 + vision.shape[1] :]), dim=1)
        positions = torch.arange(embeds.shape[1]).expand(b, -1)
        asked = batch.ids.shape[1] - 1 - vision.shape[1]
        with Balance(self.ocr) as balance:
            logits = self.ocr.decode_embeds(embeds, positions, None, True, last=asked)
        targets = batch.targets[:, -asked:]
        return (
            where,
            F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100),
            balance.loss(),
        )


class Balance:
    """Collects the router inputs of one pass; the loss is 1 where all experts are used alike."""

    def __init__(self, ocr: nn.Module):
        self.layers = [layer.mlp for layer in ocr.model.layers if hasattr(layer.mlp, "experts")]
        self.inputs: list[tuple[nn.Module, Tensor]] = []

    def __enter__(self):
        self.hooks = [
            mlp.register_forward_pre_hook(lambda mlp, args: self.inputs.append((mlp, args[0])))
            for mlp in self.layers
        ]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def loss(self) -> Tensor:
        total = []
        for mlp, x in self.inputs:
            with torch.autocast("cpu", enabled=False):
                scores = F.linear(x.flatten(0, 1).float(), mlp.gate.weight.float()).softmax(-1)  # n e
            chosen = scores.topk(mlp.top, dim=-1).indices
            share = torch.zeros_like(scores).scatter_(1, chosen, 1.0).mean(0) / mlp.top
            total.append((share * scores.mean(0)).sum() * scores.shape[1])
        return torch.stack(total).mean()


def average_gradients(parameters: list[Tensor], world: int) -> None:
    if world == 1:
        return
    parameters = [p for p in parameters if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= world
    start = 0
    for p in parameters:
        p.grad = flat[start : start + p.numel()].view_as(p).clone()
        start += p.numel()


def make_optimisers(trainee: Trainee) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside, AdamW for the rest; a group's `share` is its part of the stage's rate."""
    tables = ("embed", "lm_head", "rel_pos", "places", "mlp.gate.", "newline", "seperator")
    matrices, rest = [], []
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
    parameters = [p for p in trainee.parameters() if p.requires_grad]
    optimisers = make_optimisers(trainee)
    state, step = run / "state.pt", 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        trainee.load_state_dict(saved["model"])
        for optimiser, stored in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        step = saved["step"]
    elif start is not None:
        weights = DeepseekOCRForCausalLM.from_pretrained(start, torch.float32).state_dict()
        trainee.ocr.load_state_dict(weights)
        step = max(begin for begin, stage in r.begins() if stage.task == "head")
        if rank == 0 and (start / "training_log.jsonl").exists():
            shutil.copy(start / "training_log.jsonl", run / "log.jsonl")  # one log from the first step on
    began = last_saved = time.time()
    while step < r.steps and time.time() - began < 60 * minutes:
        rng = random.Random(f"{r.seed}/{step}/{rank}")
        shared = random.Random(f"{r.seed}/{step}")  # the same on every rank
        stage = r.stage(step)[0]
        task, boxes = stage.task, shared.random() < stage.boxes
        style = style_at(r, step)
        if boxes:
            style = replace(style, lines=(1, 4))
        full = replace(style, lines=(4, style.lines[1]), full=0.75)
        styles = [full if rng.random() < stage.dense else style for _ in range(stage.batch)]
        batch = make_batch([render(rng, style) for style in styles], boxes)
        rate = rate_at(r, step)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
        if shared.random() < stage.bf16:
            rounded = {name: p.bfloat16() for name, p in trainee.named_parameters()}
            where, says, balance = torch.func.functional_call(trainee, rounded, (batch, task))
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                where, says, balance = trainee(batch, task)
        loss = (0.3 if task == "both" else 1.0) * where + says + 0.01 * balance
        trainee.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(parameters, world)
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not math.isfinite(norm.item()):
            raise FloatingPointError(f"step {step}: gradient norm {norm.item()}")
        for optimiser in optimisers:
            optimiser.step()
        step += 1
        if rank == 0 and (step % 25 == 0 or step == 1):
            row = {
                "step": step,
                "seconds": round(time.time() - began, 1),
                "task": "boxes" if boxes else task,
                "rate": round(rate, 7),
                "where": round(where.item(), 4),
                "says": round(says.item(), 4),
                "balance": round(balance.item(), 3),
                "norm": round(norm.item(), 2),
            }
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
        if rank == 0 and step == stage.until and stage.falls:  # export takes the mean of the last ones
            torch.save({"model": trainee.state_dict(), "step": step}, run / f"end_{step:06}.pt")
        if rank == 0 and (time.time() - last_saved > 120 or step == r.steps):
            part = state.with_suffix(".part")
            stored = [optimiser.state_dict() for optimiser in optimisers]
            torch.save({"model": trainee.state_dict(), "optimisers": stored, "step": step}, part)
            os.replace(part, state)
            last_saved = time.time()
    if world > 1:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=HERE / "runs" / "default", help="folder for state and log"
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
