"""The pages of a benchmark: given files with their expected text beside them, or pages drawn from a seed.

Drawn pages are in the domain of nano: one line is short, two to seven are medium. Its page
(512 x 512 pixels) cannot contain 500 characters, so it gets no longer ones. Checkpoints with larger modes
also get pages of about 700 and about 1400 characters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.modes import get_mode
from model.tiling import TILE

from ..reading.pages import expand_inputs, iter_pages
from ..synthetic_pages.render import REGULAR, Style, font, render
from ..synthetic_pages.words import word
from .spec import BenchSpec
from .summary import category


@dataclass(frozen=True)
class Subject:
    """One page: upright RGB image, and its expected text (None if unknown)."""

    name: str
    image: object
    truth: str | None
    drawn: bool


def subjects(spec: BenchSpec, mode: str) -> list[Subject]:
    """The pages of a spec, for a checkpoint read in `mode`. Raises ImageError for a file it cannot read."""
    return list(given(spec) if spec.pages else drawn(spec, mode))


def given(spec: BenchSpec) -> Iterator[Subject]:
    """Every page of the files. Expected text: page.txt for page.png, a-p3.txt for page 3 of a.pdf."""
    for file in expand_inputs(spec.pages):
        for page in iter_pages(file, password=spec.password):
            suffix = "" if page.number == 1 else f"-p{page.number}"
            beside = file.with_name(f"{file.stem}{suffix}.txt")
            truth = beside.read_text(encoding="utf-8") if beside.exists() else None
            yield Subject(f"{Path(page.file).name}{suffix}", page.image, truth, False)


def drawn(spec: BenchSpec, mode: str) -> Iterator[Subject]:
    chosen = get_mode(mode)
    small = not chosen.crop_mode and chosen.image_size <= TILE  # too small for long texts
    for kind, make in {"short": short, "medium": medium, **({} if small else LARGE)}.items():
        for i in range(spec.count):
            rng = random.Random(f"bench/{spec.seed}/{kind}/{i}")  # differs from every seed of the training
            image, text = make(rng)
            while category(len(text)) != kind:
                image, text = make(rng)
            yield Subject(f"{kind}-{i}", image, text, True)


def lines_of(rng: random.Random, lines: tuple[int, int]):
    page = render(rng, Style(dirt=0.0, styled=0.0, lines=lines))
    return page.image, page.text


def short(rng: random.Random):
    return lines_of(rng, (1, 1))


def medium(rng: random.Random):
    return lines_of(rng, (2, 7))


def sheet(rng: random.Random, characters: int):
    """Lines of random words on 1024 x 1448 pixels, `characters` or slightly more in total."""
    from PIL import Image, ImageDraw

    face = font(rng.choice(REGULAR), 26)
    image = Image.new("RGB", (1024, 1448), "white")
    pen, total = ImageDraw.Draw(image), 0
    lines: list[str] = []
    while total < characters:
        line = word(rng)
        while len(line) < 50:
            line += " " + word(rng)
        line = line[:56].rstrip()
        pen.text((64, 64 + 40 * len(lines)), line, font=face, fill="black")
        lines.append(line)
        total += len(line) + 1
    return image, "\n".join(lines)


LARGE = {
    "between": lambda rng: sheet(rng, rng.randint(550, 850)),
    "long": lambda rng: sheet(rng, rng.randint(1100, 1600)),
}
