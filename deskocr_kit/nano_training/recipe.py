"""What nano is and in which order it learns: sizes, stages, rates, and the pages of each step.

What learns when (`Recipe.stages`), because eyes and reader wait for each other otherwise:
  eyes   dense pages; an extra head predicts, per vision token, the characters in its cell, in reading order
  align  the eyes rest; the reader learns where on the page the next character stands
  both   both losses, while rows move away from the cell grid, fonts mix and dirt comes in
  head   the extra head alone, where a run goes on from a stored checkpoint
"""

from __future__ import annotations

from dataclasses import dataclass

from model import DeepseekOCRConfig

from ..synthetic_pages.render import EASY, HARD, WIDE, Style
from .tokenizer import IMAGE_ID, VOCAB


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
    hard: float = 0.0  # how much of what was misread most: 1 is render.HARD, see there
    box_lines: int = 4  # most lines on a page that is asked for boxes
    digits: float = 1.0  # weight of a digit of a box in the loss; 1 is that of every other token


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
        Stage(8820, "head", 8, 1e-2, (1.0, 1.0), dense=1.0),
        Stage(9550, "both", 12, 6e-4, (1.0, 1.0), dense=0.75, boxes=0.08, falls=700, bf16=0.2),
        Stage(10250, "both", 12, 5e-4, (1.0, 1.0), dense=0.65, boxes=0.08, falls=680, bf16=0.2),
        Stage(10320, "head", 8, 1e-2, (1.0, 1.0), dense=1.0),
        Stage(
            12800,
            "both",
            12,
            8e-4,
            (1.0, 1.0),
            dense=0.7,
            boxes=0.2,
            falls=1700,
            bf16=0.2,
            hard=1.0,
            box_lines=7,
            digits=4.0,
        ),
        Stage(
            13100,
            "both",
            12,
            4e-4,
            (1.0, 1.0),
            dense=0.65,
            boxes=0.1,
            falls=226,
            bf16=0.2,
            hard=0.5,
            box_lines=7,
            digits=4.0,
        ),
        Stage(
            15300,
            "both",
            12,
            7e-4,
            (1.0, 1.0),
            dense=0.7,
            boxes=0.2,
            falls=1700,
            bf16=0.2,
            hard=0.6,
            box_lines=7,
            digits=4.0,
        ),
        Stage(
            16000,
            "both",
            12,
            6e-4,
            (1.0, 1.0),
            dense=0.65,
            boxes=0.15,
            falls=600,
            bf16=0.2,
            hard=0.6,
            box_lines=7,
            digits=4.0,
        ),
        Stage(
            16700,
            "both",
            12,
            5e-4,
            (1.0, 1.0),
            dense=0.7,
            boxes=0.12,
            falls=560,
            bf16=0.2,
            hard=1.0,
            box_lines=7,
            digits=4.0,
        ),
    )
    warmup: int = 30
    average: float = 0.998  # share of the running mean of the weights that stays at each step
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
        **{kind: stage.hard * share for kind, share in HARD.items()},
    )
