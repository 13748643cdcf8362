"""Writes the tables of docs/parallel.md from the official sizes: `python -m docs.parallel`."""

from __future__ import annotations

import re
from pathlib import Path

from deskocr_kit.display.table import markdown_table
from model import DeepseekOCRConfig
from model.official import CHECKPOINTS
from model.parallel.pipeline import Stages
from model.parallel.split import PARTS, Split

PAGE = Path(__file__).with_name("parallel.md")
CARDS = (1, 2, 4, 8)
HALF = 2  # bytes of a number in fp16 and bf16


def tensor_rows() -> list[list[str]]:
    rows = []
    for name, official in CHECKPOINTS.items():
        for cards in CARDS:
            split = Split.of(DeepseekOCRConfig.official(name), cards)
            whole = [part for part in PARTS if part not in split.divided]
            rows.append(
                [
                    official.title,
                    str(cards),
                    f"{split.parameters() * HALF / 1e9:.2f}",
                    ", ".join(whole) or "-",
                    str(split.sums()),
                    f"{split.summed() * HALF:,}" if split.sums() else "-",
                    f"{split.gathered() * HALF:,}",
                    f"{split.cache_values() * HALF:,}",
                ]
            )
    return rows


def stage_rows() -> list[list[str]]:
    rows = []
    for name, official in CHECKPOINTS.items():
        config = DeepseekOCRConfig.official(name)
        stages = Stages.of(config)
        rows.append(
            [
                official.title,
                f"{stages.first} of {config.decoder.layers}",
                *(f"{stages.parameters(stage) * HALF / 1e9:.2f}" for stage in range(2)),
                f"{config.decoder.width * HALF:,}",
            ]
        )
    return rows


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(head, rows)) + "\n"


def tables() -> dict[str, str]:
    """{name of a table in the page: its lines}."""
    head = "model, cards, GB per rank, parts that do not divide, all-reduces per token, bytes per all-reduce"
    head += ", bytes of logits gathered per token, bytes of KV cache per position and rank"
    stages = ["model", "layers in stage 0", "GB of stage 0", "GB of stage 1", "bytes per token"]
    return {"tensor": table(head.split(", "), tensor_rows()), "pipeline": table(stages, stage_rows())}


def page() -> str:
    """docs/parallel.md with its tables made anew; all other text is as it stands there."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in tables().items():
        pattern = rf"(?s)(<!-- table {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, new=lines: f"{found[1]}{new}{found[2]}", text)
        assert count == 1, f"{PAGE.name} has no place for the table {name}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
