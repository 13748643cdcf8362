"""Training state -> the stored checkpoint.

    python -m deskocr_kit.nano_training.export model/nano 12800 13100:model

Writes config.json, model.safetensors (fp16), the tokenizer and generation_config.json into model/nano/, and
the training log beside them. The extra head of the training is left out.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor

from model import DeepseekOCRForCausalLM
from model.files import write_json

from . import tokenizer
from .train import NANO
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


def weights(run: Path, part: str) -> dict[str, Tensor]:
    """The network's weights in `part`: a checkpoint folder, "state", or the step of a stage end.

    ":model" after a step takes the weights of the step itself, not the running mean that the training keeps.
    """
    if Path(part).is_dir():
        return DeepseekOCRForCausalLM.from_pretrained(Path(part), torch.float32).state_dict()
    step, _, kind = part.partition(":")
    path = run / ("state.pt" if step == "state" else f"end_{int(step):06}.pt")
    saved = torch.load(path, weights_only=True)[kind or "average"]
    return {name.removeprefix("ocr."): p for name, p in saved.items() if name.startswith("ocr.")}


def export(run: Path, folder: Path, parts: list[str]) -> None:
    """Write the checkpoint: the mean of the weights of `parts`, see `weights`.

    The mean of the ends of a falling rate, the start among them, reads better than each, at no cost (Izmailov
    et al., "Averaging weights leads to wider optima and better generalization", 2018).
    """
    trainee = Trainee(seed=0)
    states = [weights(run, part) for part in parts]
    trainee.ocr.load_state_dict(
        {name: sum(state[name] for state in states) / len(states) for name in states[0]}
    )
    trainee.ocr.half().save_pretrained(folder)
    tokenizer.write(folder)
    write_json(folder / "generation_config.json", GENERATION)
    shutil.copy(run / "log.jsonl", folder / "training_log.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=NANO / "runs" / "default")
    parser.add_argument("--folder", type=Path, default=NANO)
    parser.add_argument(
        "parts",
        nargs="+",
        help="what to average: a checkpoint folder, the step of a stage end, step:model, or state",
    )
    args = parser.parse_args()
    export(args.run, args.folder, args.parts)
    print(f"{', '.join(args.parts)} -> {args.folder}")


if __name__ == "__main__":
    main()
