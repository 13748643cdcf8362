"""Draws pages of printed text with known truth, in the fonts that matplotlib ships."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .words import prose, word

SIDE = 512  # pixels of a page, as in the tiny mode
CELL = 64  # side of the cell of one vision token, pixels
REGULAR = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")
STYLED = (
    "DejaVuSans-Bold",
    "DejaVuSansMono-Bold",
    "DejaVuSerif-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Italic",
)


@dataclass(frozen=True)
class Style:
    """The ranges in which a page varies. They widen during training (see nano_training/train.py)."""

    sizes: tuple[int, int] = (28, 40)  # font size, pixels
    pitch: tuple[int, int] = (60, 68)  # line distance, pixels
    lines: tuple[int, int] = (1, 7)
    free_top: float = 1.0  # 0: rows centred in the cells; 1: anywhere
    margins: tuple[int, int] = (4, 64)
    mono: float = 0.34  # share of the monospaced font
    styled: float = 0.15  # share of bold and slanted fonts
    dirt: float = 0.5  # share of pages with grey levels, noise, blur, rotation or another antialiasing
    full: float = 0.5  # share of lines filled to the right margin
    smooth: float = 0.0  # share of clean pages drawn larger and reduced: letters at fractions of a pixel
    straddle: float = 0.0  # share of pages whose rows lie where two cells meet
    prose: float = 0.0  # share of pages of sentences and program code
    short: float = 0.0  # share of lines of one to three characters


EASY = Style(pitch=(64, 64), lines=(5, 7), free_top=0.0, mono=0.6, styled=0.0, dirt=0.0, full=1.0)
DOMAIN = Style(dirt=0.0, styled=0.0)  # the domain of nano: clean pages in regular fonts
HARD = {"smooth": 0.4, "straddle": 0.35, "prose": 0.35, "short": 0.08}  # kinds that were misread most often
WIDE = Style(sizes=(27, 41), pitch=(60, 70), styled=0.06, dirt=0.3)


@dataclass
class Line:
    text: str
    box: tuple[float, float, float, float]  # of the ink, pixels: left, top, right, bottom
    centres: list[float] = field(default_factory=list)  # of each character, pixels from the left
    middle: float = 0.0  # of the row, pixels from the top


@dataclass
class Page:
    image: Image.Image
    lines: list[Line]

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@lru_cache(maxsize=512)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_folder() / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=65536)
def advance(name: str, size: int, char: str) -> float:
    """Pixels from one character to the next, without kerning."""
    return font(name, size).getlength(char)


def fill(
    rng: random.Random,
    name: str,
    size: int,
    width: float,
    full: bool,
    draw: Callable[[random.Random], str] = word,
) -> str:
    """Random words that fit into `width` pixels; at least one character."""
    words: list[str] = []
    limit = 40 if full else rng.randint(1, 5)
    misses, used, blank = 0, 0.0, advance(name, size, " ")
    while len(words) < limit and misses < 3:
        candidate = draw(rng)
        length = sum(advance(name, size, char) for char in candidate) + (blank if words else 0)
        if used + length <= width:
            words.append(candidate)
            used += length
        else:
            misses += 1
    return " ".join(words) or rng.choice("abcdefgh")


def render(
    rng: random.Random, style: Style = WIDE, texts: list[str] | None = None, face_name: str | None = None
) -> Page:
    """One page, SIDE x SIDE, RGB. `texts` sets the lines, `face_name` the font; None: random."""
    draw = rng.random()
    if face_name is not None:
        name = face_name
    elif draw < style.styled:
        name = rng.choice(STYLED)
    else:
        name = REGULAR[1] if rng.random() < style.mono else rng.choice((REGULAR[0], REGULAR[2]))
    size = rng.randint(*style.sizes)
    dirty = rng.random() < style.dirt
    zoom = 2 if dirty and rng.random() < 0.5 else 1  # drawn twice as large and reduced: other antialiasing
    if style.smooth and not dirty and rng.random() < style.smooth:
        zoom = rng.choice((2, 2, 3))
    vocabulary = prose if style.prose and rng.random() < style.prose else word
    face = font(name, size * zoom)
    pitch = max(rng.uniform(*style.pitch), size * 1.25)
    count = len(texts) if texts else rng.randint(*style.lines)
    count = min(count, int((SIDE - size * 0.3) // pitch))
    left = rng.uniform(*style.margins)
    right = rng.uniform(*style.margins)
    height = pitch * count
    centred = (SIDE - CELL * int(SIDE // CELL)) / 2 + CELL * rng.randint(
        0, max(0, int((SIDE - height) // CELL))
    )
    anywhere = rng.uniform(-0.1 * size, SIDE - height + 0.1 * size)
    top = centred + style.free_top * (anywhere - centred)
    if style.straddle and rng.random() < style.straddle:
        pitch = max(rng.uniform(CELL - 1, CELL + 1), size * 1.25)
        count = min(count, SIDE // CELL - 1)
        top = CELL * rng.randint(1, SIDE // CELL - count) + rng.uniform(-12, 12) - pitch / 2
    paper, ink = 255, 0
    colour = (ink, ink, ink)
    if dirty:
        paper = rng.randint(225, 255)
        colour = (rng.randint(0, 90), rng.randint(0, 90), rng.randint(0, 90))
    canvas = Image.new("RGB", (SIDE * zoom, SIDE * zoom), (paper,) * 3)
    pen = ImageDraw.Draw(canvas)
    ragged = rng.random() < 0.1
    lines = []
    ascent, descent = face.getmetrics()
    for i in range(count):
        x = left + (rng.uniform(0, 40) if ragged else 0)
        if texts:
            text = texts[i]
        elif style.short and rng.random() < style.short:
            text = vocabulary(rng)[: rng.randint(1, 3)]
        else:
            text = fill(rng, name, size, SIDE - right - x, rng.random() < style.full, vocabulary)
        middle = top + pitch * (i + 0.5)
        y = middle * zoom - (ascent + descent) / 2
        pen.text((x * zoom, y), text, font=face, fill=colour)
        x0, y0, x1, y1 = pen.textbbox((x * zoom, y), text, font=face)
        box = (x0 / zoom, y0 / zoom, x1 / zoom, y1 / zoom)
        ends = list(accumulate((advance(name, size, char) for char in text), initial=x))
        centres = [(a + b) / 2 for a, b in pairwise(ends)]
        lines.append(Line(text, box, centres, middle))
    if zoom > 1:
        canvas = canvas.resize((SIDE, SIDE), rng.choice((Image.Resampling.BICUBIC, Image.Resampling.BOX)))
    return Page(spoil(rng, canvas) if dirty else canvas, lines)


def spoil(rng: random.Random, image: Image.Image) -> Image.Image:
    """Add the faults of a scan: rotation of at most half a degree, blur, noise, JPEG."""
    if rng.random() < 0.3:
        paper = image.getpixel((0, 0))
        image = image.rotate(rng.uniform(-0.5, 0.5), Image.Resampling.BICUBIC, fillcolor=paper)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    if rng.random() < 0.3:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 12), (SIDE, SIDE, 1))
        image = Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(50, 90))
        image = Image.open(buffer).convert("RGB")
    return image
