"""200 page sizes and their pages, for the views of DeepSeek-OCR-2 and Unlimited-OCR."""

from __future__ import annotations

import numpy as np
from PIL import Image

STRIPS = [(1, 700), (700, 1), (3, 2000), (2500, 40), (31, 1000), (1000, 31)]
EDGES = [(n, m) for n in (639, 640, 641, 767, 768, 769, 1023, 1024, 1025) for m in (640, 768, 1024)]


def sizes() -> list[tuple[int, int]]:
    """200 different (width, height): strips, sides of tiles and views, halves of tiles, and random ones."""
    rng = np.random.default_rng(7)
    halves = [(320 * w, 384 * h) for w in range(1, 7) for h in range(1, 6)]
    found = list(dict.fromkeys([*STRIPS, *EDGES, *halves]))
    while len(found) < 200:
        size = tuple(int(n) for n in rng.integers(20, 2600, 2))
        if size not in found:
            found.append(size)
    return found


def page(width: int, height: int) -> Image.Image:
    """A smooth RGB page without the grey of the padding, so that its edge in a padded view is visible."""
    rng = np.random.default_rng(width * 10_000 + height)
    coarse = rng.integers(160, 256, (height // 32 + 2, width // 32 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def summary(view: np.ndarray) -> dict:
    """What is compared of one view, a float array (3, s, s) in -1..1.

    box: the part that is not padding, (left, top, right, bottom). blocks: means of 4 x 4 blocks in 0..255.
    """
    shown = (view + 1) * 127.5
    inside = (np.abs(shown - 127) > 6).any(0)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    side = shown.shape[-1] // 4
    blocks = shown.mean(0).reshape(4, side, 4, side).mean((1, 3))
    return {"box": box, "blocks": [round(float(value), 1) for value in blocks.ravel()]}
