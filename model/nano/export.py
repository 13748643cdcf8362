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
from .train import HERE
from .trainee import Trainee

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


def export(run: Path, folder: Path, ends: int, kind: str = "average") -> list[int]:
    """Write the checkpoint: the mean of the weights at the last `ends` stage ends; with 0 the newest state.

    kind: "average", the running mean that the training keeps, or "model", the weights of the step itself.

    The mean of two ends of a falling rate reads better than either, at no cost (Izmailov et al., "Averaging
    weights leads to wider optima and better generalization", 2018). Returns the steps that went into it.
    """
    paths = sorted(run.glob("end_*.pt"))[-ends:] if ends else [run / "state.pt"]
    if not paths:
        raise FileNotFoundError(
            f"{run}: no end_*.pt; no stage has ended yet. --ends 0 takes the newest state"
        )
    states = [torch.load(path, weights_only=True) for path in paths]
    trainee = Trainee(seed=0)
    trainee.load_state_dict(
        {name: sum(state[kind][name] for state in states) / len(states) for name in states[0][kind]}
    )
    trainee.ocr.half().save_pretrained(folder)
    tokenizer.write(folder)
    write_json(folder / "generation_config.json", GENERATION)
    shutil.copy(run / "log.jsonl", folder / "training_log.jsonl")
    return [state["step"] for state in states]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "default")
    parser.add_argument("--folder", type=Path, default=HERE)
    parser.add_argument("--ends", type=int, default=2, help="stage ends to average; 0: the newest state")
    parser.add_argument("--kind", choices=["average", "model"], default="average")
    args = parser.parse_args()
    steps = export(args.run, args.folder, args.ends, args.kind)
    print(f"steps {', '.join(map(str, steps))} -> {args.folder}")


if __name__ == "__main__":
    main()
