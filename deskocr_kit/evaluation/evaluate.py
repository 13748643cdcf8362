"""Character error rate (CER) of a checkpoint on pages with known text.

    python -m deskocr_kit.evaluation

The pages are generated from seeds that training never uses (training uses "<seed>/<step>/<rank>").
Boxes are compared too, by their overlap.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from model.boxes import parse_boxes, to_pixels_box

from ..device.dtypes import dtype_name
from ..reading.text_distance import edits
from ..synthetic_pages import render, sample_pages
from ..synthetic_pages.damage import DAMAGE

Sample = tuple[Image.Image, str]
FONTS = ("DejaVu Sans", "DejaVu Sans Mono", "DejaVu Serif")
PROSE = (
    "The night train left the valley an hour late. Nobody in the carriage had slept, and the "
    "heating was broken. At 05:40 we crossed the bridge; the river was high and brown. My "
    'neighbour, a clerk from Bremen, counted his coins twice: 17 marks and 35 pfennigs. "It will '
    'do," he said, "if the hotel is honest." Outside, lamps went by like slow birds. We had bread, '
    "two apples and half a sausage, which he cut with a pocket knife. Then the guard came: "
    '"Tickets, please!" Mine was wet but valid (zone B, return). The mountains began behind the '
    "town of Elm. Snow lay on the roofs, blue in the first light, and a dog ran beside the rails as "
    "if it knew us."
)


def drawn(style: str) -> Callable[[random.Random], Sample]:
    """Random words, drawn by Pillow in a style of synthetic_pages/render.py, as in training."""

    def make(rng: random.Random) -> Sample:
        page = render.render(rng, getattr(render, style))
        return page.image, page.text

    return make


def damaged(kind: str) -> Callable[[random.Random], Sample]:
    """A clean page of the domain with one kind of damage, see synthetic_pages/damage.py."""

    def make(rng: random.Random) -> Sample:
        image, text = drawn("DOMAIN")(rng)
        return DAMAGE[kind](rng, image), text

    return make


def typeset(rng: random.Random) -> Sample:
    """Prose, drawn by matplotlib: rasteriser, words and layout differ from those of training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    family, size = rng.choice(FONTS), rng.uniform(28, 40)
    words = PROSE.split()
    at = rng.randrange(len(words))
    figure = Figure(figsize=(5.12, 5.12), dpi=100)
    canvas = FigureCanvasAgg(figure)
    left, lines = rng.uniform(8, 40), []
    for _ in range(rng.randint(2, 7)):
        line = ""
        while True:
            longer = f"{line} {words[at % len(words)]}".strip()
            path = TextPath((0, 0), longer, size=size, prop=FontProperties(family=family))
            if path.get_extents().width > 496 - left:
                break
            line, at = longer, at + 1
        lines.append(line)
    top = rng.uniform(0, 512 - 64 * len(lines))
    for i, line in enumerate(lines):
        y = 1 - (top + 64 * i + 32) / 512
        figure.text(
            left / 512, y, line, family=family, size=size * 0.72, va="center_baseline", parse_math=False
        )
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()), "\n".join(lines)


MAKES = {
    "domain": drawn("DOMAIN"),  # the domain of nano: clean pages, regular fonts, random words
    "wide": drawn("WIDE"),  # beyond its domain: bold and slanted fonts, dirt
    "typeset": typeset,  # from another renderer
}
DAMAGED = {kind: damaged(kind) for kind in DAMAGE}  # outside its domain


def samples() -> Iterator[Sample]:
    """The sample pages that are included with nano."""
    for name in sample_pages.PAGES:
        page = sample_pages.draw(name)
        yield page.image, page.text


def pages(make: str, count: int, seed: int) -> Iterator[Sample]:
    """`count` held-out pages of a make; for "samples" all sample pages, whatever `count` is."""
    if make == "samples":
        yield from samples()
        return
    for i in range(count):
        yield (MAKES | DAMAGED)[make](random.Random(f"held out/{seed}/{make}/{i}"))


def interval(wrong: np.ndarray, length: np.ndarray, rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of sum(wrong) / sum(length) over pages."""
    rng = np.random.default_rng(0)
    at = rng.integers(0, len(wrong), (rounds, len(wrong)))
    rates = wrong[at].sum(1) / np.maximum(1, length[at].sum(1))
    low, high = np.quantile(rates, (0.025, 0.975))
    return float(low), float(high)


def evaluate(reader, make: str, count: int, seed: int, progress: Callable = lambda pages: pages) -> dict:
    """CER of `reader` (a reading.reader.Reader) over held-out pages, as a plain record."""
    counts: list[tuple[int, int]] = []  # edits, characters
    truncated, worst = 0, (-1.0, "", "")
    start = time.perf_counter()
    drawn_pages = list(pages(make, count, seed))
    for image, truth in progress(drawn_pages):
        reading = reader.read(image, "free")
        distance, characters = edits(reading.text, truth)
        counts.append((distance, characters))
        truncated += reading.truncated
        worst = max(worst, (distance / max(1, characters), truth, reading.text))
    wrong, length = np.array(counts).T
    low, high = interval(wrong, length)
    return {
        "make": make,
        "pages": len(drawn_pages),
        "seed": seed,
        "characters": int(length.sum()),
        "cer": round(float(wrong.sum() / max(1, length.sum())), 5),
        "interval_95": [round(low, 5), round(high, 5)],
        "pages_without_error": int((wrong == 0).sum()),
        "truncated": truncated,
        "worst": {"cer": round(worst[0], 4), "truth": worst[1], "read": worst[2]},
        "seconds_per_page": round((time.perf_counter() - start) / len(drawn_pages), 3),
        "device": str(reader.model.device),
        "dtype": dtype_name(reader.model.dtype),
    }


def overlap(a: tuple, b: tuple) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return both / (area(a) + area(b) - both)


def evaluate_boxes(reader, count: int, seed: int, progress: Callable = lambda pages: pages) -> dict:
    """Boxes of lines on pages of the make `domain`, prompt `ocr`, as one plain record.

    The i-th box read is compared with the box of the ink of the i-th line; a line without a box counts 0.
    `iou` is the mean over all lines, its interval a bootstrap over pages.
    """
    sums, lines, same, every, truncated = [], [], 0, [], 0
    start = time.perf_counter()
    for i in progress(range(count)):
        page = render.render(random.Random(f"held out/{seed}/boxes/{i}"), render.DOMAIN)
        reading = reader.read(page.image, "ocr")
        found = [box for ref in parse_boxes(reading.text) for box in ref.boxes[:1]]
        found = [to_pixels_box(box, *page.image.size) for box in found]
        overlaps = [overlap(box, line.box) for box, line in zip(found, page.lines, strict=False)]
        same += len(found) == len(page.lines)
        truncated += reading.truncated
        every += overlaps + [0.0] * (len(page.lines) - len(overlaps))
        sums.append(sum(overlaps))
        lines.append(len(page.lines))
    low, high = interval(np.array(sums), np.array(lines))
    return {
        "make": "boxes",
        "pages": count,
        "seed": seed,
        "lines": len(every),
        "iou": round(sum(every) / len(every), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "lines_over_half": round(sum(iou > 0.5 for iou in every) / len(every), 4),
        "pages_with_right_number": round(same / count, 4),
        "truncated": truncated,
        "seconds_per_page": round((time.perf_counter() - start) / count, 3),
        "device": str(reader.model.device),
        "dtype": dtype_name(reader.model.dtype),
    }
