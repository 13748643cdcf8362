"""How far the logits are from transformers', per model, grid and dtype.

    python -m tests.baselines.agreement

Tiny random weights; transformers computes in fp32. The figure is the norm of the difference relative to the
norm: where two experts nearly tie, rounding may choose the other one, and a single logit differs by more.
The table in README.md states upper bounds of these figures.
"""

from __future__ import annotations

import tempfile

import torch

from deskocr_kit.baselines.transformers_model import load_peer, peer_inputs
from model import DeepseekOCRForCausalLM
from tests.helpers.family import NAMES, batch, tiny

GRIDS = [(1, 1), (2, 1), (2, 3), (1, 5)]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@torch.no_grad()
def measure(name: str, grids=GRIDS, dtypes=tuple(DTYPES)) -> dict[tuple[tuple[int, int], str], float]:
    """{(grid, dtype): relative difference}."""
    config = tiny(name)
    with tempfile.TemporaryDirectory() as folder:
        DeepseekOCRForCausalLM.random(config, seed=3).save_pretrained(folder)
        peer = load_peer(folder, config)
        ours = {dtype: DeepseekOCRForCausalLM.from_pretrained(folder, DTYPES[dtype]) for dtype in dtypes}
    found = {}
    for grid in grids:
        given = batch(config, [[grid]])
        theirs = peer(**peer_inputs(given, rows=config.clip is not None)).logits
        for dtype, model in ours.items():
            away = (model(**given).logits - theirs).norm() / theirs.norm()
            found[grid, dtype] = float(away)
    return found


def main() -> None:
    for name in NAMES:
        found = measure(name)
        cells = []
        for dtype in DTYPES:
            cells.append(" / ".join(f"{100 * found[grid, dtype]:.1g}" for grid in GRIDS))
        print(f"| {name} | " + " | ".join(f"{cell} %" for cell in cells) + " |")


if __name__ == "__main__":
    main()
