"""Drawn pages -> what a training step takes: pixels, token ids, what shall be said, what stands where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..synthetic_pages.render import CELL, SIDE, Page
from .tokenizer import FIRST_BYTE, IMAGE_ID, SPECIAL

BOS, EOS, PAD = 0, 1, 2
CELLS = SIDE // CELL
EDGES = 12  # what the extra head says of a line's box, three numbers each for left, top, right, bottom
PLACES = 9  # characters per cell that the extra head tells apart: the narrowest font at 26 px fits eight
CLASSES = 1 + 95 + 1  # nothing, printable ASCII, anything else
FREE, OCR = "\nFree OCR.", "\n<|grounding|>OCR this image."


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


def on_scale(pixels: float) -> int:
    """Pixels -> the 0..999 scale of the boxes."""
    return min(999, max(0, round(pixels / SIDE * 999)))


def answer(page: Page, boxes: bool) -> str:
    """What the model shall say: the lines, or each line with its box on a 0..999 scale, in the official
    format.
    """
    if not boxes:
        return page.text
    return "\n".join(
        f"<|ref|>{line.text}<|/ref|><|det|>[[{', '.join(str(on_scale(v)) for v in line.box)}]]<|/det|>"
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


def edge_labels(page: Page) -> list[int]:
    """For every cell, row-major, EDGES numbers 0..9 on the box of the line in it; -100 where none is asked.

    Each edge has its first two digits on the scale of the boxes, and how far it lies from the cell's corner,
    in eighths. Top and bottom are asked in each cell of the line, left in that of its first character, right
    in that of its last.
    """
    digits = [[-100] * EDGES for _ in range(CELLS * CELLS)]
    for line in page.lines:
        row = min(CELLS - 1, max(0, int(line.middle // CELL)))
        columns = [min(CELLS - 1, max(0, int(x // CELL))) for x in line.centres]
        starts = (columns[0] * CELL - 8, row * CELL - 24, columns[-1] * CELL, row * CELL)
        box = [
            [on_scale(v) // 100, on_scale(v) // 10 % 10, min(9, max(0, int((v - start) // 8)))]
            for v, start in zip(line.box, starts, strict=True)
        ]
        for column in range(columns[0], columns[-1] + 1):
            cell = digits[row * CELLS + column]
            cell[3:6], cell[9:12] = box[1], box[3]
        digits[row * CELLS + columns[0]][0:3] = box[0]
        digits[row * CELLS + columns[-1]][6:9] = box[2]
    return [label for cell in digits for label in cell]


@dataclass
class Batch:
    pixels: Tensor  # b 3 S S
    ids: Tensor  # b n
    targets: Tensor  # b n, -100 where nothing is asked
    places: Tensor  # b cells * places
    edges: Tensor  # b cells * edges, -100 where nothing is asked
    weights: Tensor  # b n, of each target in the loss


def in_boxes(ids: list[int]) -> list[bool]:
    """For each token of an answer, whether it is a digit of a box."""
    begin, end = encode("<|det|>")[0], encode("<|/det|>")[0]
    inside, digits = False, []
    for token in ids:
        inside = token == begin or (inside and token != end)
        digits.append(inside and FIRST_BYTE + ord("0") <= token <= FIRST_BYTE + ord("9"))
    return digits


def make_batch(pages: list[Page], boxes: bool, digits: float = 1.0) -> Batch:
    """The pages as one batch; `digits` is the weight of a digit of a box in the loss."""
    import numpy as np

    head = [BOS] + [IMAGE_ID] * (CELLS * (CELLS + 1) + 1) + encode(OCR if boxes else FREE)
    answers = [encode(answer(page, boxes)) + [EOS] for page in pages]
    width = len(head) + max(map(len, answers)) - 1
    width += -width % 32  # few widths, so that torch sets up few kinds of products
    ids = torch.full((len(pages), width), PAD)
    targets = torch.full((len(pages), width), -100)
    weights = torch.ones(len(pages), width)
    for i, text in enumerate(answers):
        ids[i, : len(head) + len(text) - 1] = torch.tensor(head + text[:-1])
        targets[i, len(head) - 1 : len(head) + len(text) - 1] = torch.tensor(text)
        counts = torch.tensor([digits if digit else 1.0 for digit in in_boxes(text)])
        weights[i, len(head) - 1 : len(head) + len(text) - 1] = counts
    pixels = torch.stack([torch.from_numpy(np.array(page.image)).permute(2, 0, 1) for page in pages])
    places = torch.tensor([place_labels(page) for page in pages])
    edges = torch.tensor([edge_labels(page) for page in pages])
    return Batch(pixels.float().div_(127.5).sub_(1.0), ids, targets, places, edges, weights)
