"""Training state -> the stored checkpoint: `python -m model.nano.export --run model/nano/runs/default`.

Writes config.json, model.safetensors (fp16), the tokenizer and generation_config.json into model/nano/, and
the training log beside them. The extra head of the training is left out.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from ..loading import write_json
from . import tokenizer
from .train import HERE, Trainee

# A page in the domain has at most 7 lines; with boxes, that is about 500 tokens. Rows of equal characters are
# legitimate text for a reader of single characters, so there is no n-gram guard.
GENERATION = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "mode": "tiny",
    "max_new_tokens": 640,
    "no_repeat_ngram_size": 0,
}


def export(run: Path, folder: Path) -> int:
    """Write the checkpoint of the newest state; returns the step it was at."""
    saved = torch.load(run / "state.pt", weights_only=True)
    trainee = Trainee(seed=0)
    trainee.load_state_dict(saved["model"])
    trainee.ocr.half().save_pretrained(folder)
    tokenizer.write(folder)
    write_json(folder / "generation_config.json", GENERATION)
    shutil.copy(run / "log.jsonl", folder / "training_log.jsonl")
    return saved["step"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "default")
    parser.add_argument("--folder", type=Path, default=HERE)
    args = parser.parse_args()
    print(f"step {export(args.run, args.folder)} -> {args.folder}")


if __name__ == "__main__":
    main()
