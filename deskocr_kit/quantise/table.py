"""A table of the effects of fewer bits on text, memory and speed, measured in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from model.images import load_image

from ..device import is_simulated, synchronize
from ..device.dtypes import dtype_name
from ..display.table import Cell, html_table, text_table
from ..reading.reader import Reader
from ..reading.text_distance import edits
from .apply import LayerError, quantise, weight_bytes

STEPS = 16  # decoded tokens per timing, the same number for all variants
REPEATS = 3  # the smallest time counts, because others may use the machine
SHOWN = 5  # layers in the table


@dataclass(frozen=True)
class Row:
    """Results of one kind of weights.

    cer: edits divided by characters, over all pages. same: share of positions of the text that the plain
    weights read with the same most likely next token. seconds: per decoded token, one page.
    """

    weights: str
    bytes: int
    cer: float
    same: float
    seconds: float
    layers: tuple[LayerError, ...] = ()  # worst first


@dataclass(frozen=True)
class Comparison:
    """Results for one checkpoint; rows[0] has the plain weights."""

    model: str
    device: str
    pages: int
    rows: tuple[Row, ...]

    def cells(self) -> list[list[str]]:
        plain = self.rows[0]
        table = [["weights", "MB", "of plain", "CER", "same token", "ms/token", "speed"]]
        for row in self.rows:
            share, speed = row.bytes / plain.bytes, plain.seconds / row.seconds
            table.append([
                row.weights, f"{row.bytes / 1e6:.1f}", f"{share:.2f}", f"{row.cer:.4f}", f"{row.same:.4f}",
                f"{row.seconds * 1e3:.1f}", f"{speed:.2f}x",
            ])  # fmt: skip
        return table

    @property
    def heading(self) -> str:
        pages = "1 sample page" if self.pages == 1 else f"{self.pages} sample pages"
        return f"{self.model} on {self.device}, {pages}"

    def notes(self) -> list[str]:
        lines = []
        for row in self.rows[1:]:
            lines.append(f"{row.weights}: layers by |error| / |weights|, worst first")
            lines += [
                f"  {each.relative:.2e}  {each.largest:.2f} steps  {each.name}" for each in row.layers[:SHOWN]
            ]
        return [*lines, "same token, ms/token and speed: see deskocr quantise --help"]

    def __repr__(self) -> str:
        head, *rows = self.cells()
        return "\n".join([self.heading, text_table(head, rows, right=True), *self.notes()])

    def _repr_html_(self) -> str:
        head, *rows = self.cells()
        table = html_table(head, [[Cell(text, "") for text in row] for row in rows], numbers=head)
        notes = escape("\n".join(self.notes()))
        return f"<p>{escape(self.heading)}</p>{table}<pre>{notes}</pre>"

    def record(self) -> dict:
        """Plain data, for JSON."""
        return asdict(self)


def compare(
    load: Callable[[], Reader],
    bits: Sequence[int],
    pages: Sequence[tuple[Path, str]],
    max_new_tokens: int | None = None,
) -> Comparison:
    """Compare plain weights with each of `bits`. Only one model is in memory at a time.

    Args:
        load: returns a new reader.
        pages: (path of the image, true text), at least one.

    Raises:
        ValueError: no page.
    """
    if not pages:
        raise ValueError("no page to read")
    images = [load_image(path) for path, _ in pages]
    truths = [truth for _, truth in pages]
    reader = load()
    where = reader.model.device
    heading = reader.name, f"{where} (simulated, no NPU times)" if is_simulated(where) else str(where)
    readings = [reader.read(image, max_new_tokens=max_new_tokens) for image in images]
    inputs = [reader.inputs(image) for image in images]
    expected = [next_tokens(reader.model, i, r.ids) for i, r in zip(inputs, readings, strict=True)]
    name = dtype_name(reader.model.dtype)

    def row(weights: str, read: list, layers: Sequence[LayerError] = ()) -> Row:
        ours = [next_tokens(reader.model, i, r.ids) for i, r in zip(inputs, readings, strict=True)]
        same = torch.cat([a == b for a, b in zip(ours, expected, strict=True)]).float().mean().item()
        counts = [edits(r.text, truth) for r, truth in zip(read, truths, strict=True)]
        wrong, length = map(sum, zip(*counts, strict=True))
        seconds = seconds_per_token(reader.model, inputs[0])
        size = weight_bytes(reader.model)
        return Row(weights, size, wrong / max(1, length), same, seconds, tuple(layers))

    rows = [row(name, readings)]
    for b in bits:
        del reader  # free the old one before the next is loaded
        reader = load()
        layers = quantise(reader.model, b)
        read = [reader.read(image, max_new_tokens=max_new_tokens) for image in images]
        rows.append(row(f"int{b}", read, layers))
    return Comparison(*heading, len(pages), tuple(rows))


@torch.no_grad()
def next_tokens(model, inputs: dict, ids: list[int]) -> Tensor:
    """The most likely token at every position of `ids`, given the ids before it (len(ids))."""
    more = torch.tensor([ids[:-1]], dtype=torch.long)
    given = {**inputs, "input_ids": torch.cat((inputs["input_ids"], more), 1)}
    given["images_seq_mask"] = torch.nn.functional.pad(inputs["images_seq_mask"], (0, more.shape[1]))
    if inputs.get("attention_mask") is not None:
        ones = torch.ones_like(more, dtype=inputs["attention_mask"].dtype)
        given["attention_mask"] = torch.cat((inputs["attention_mask"], ones), 1)
    return model(**given, logits_to_keep=len(ids)).logits[0].argmax(-1).cpu()


def seconds_per_token(model, inputs: dict) -> float:
    """(time of STEPS + 1 tokens - time of one) / STEPS; on a CPU, processor time of this process."""
    clock = time.process_time if model.device.type == "cpu" else time.perf_counter

    def run(tokens: int) -> float:
        synchronize(model.device)
        start = clock()
        model.generate(**inputs, max_new_tokens=tokens, eos_token_id=None)
        synchronize(model.device)
        return clock() - start

    run(2)  # warm
    one, many = (min(run(tokens) for _ in range(REPEATS)) for tokens in (1, STEPS + 1))
    return max(many - one, 1e-9) / STEPS
