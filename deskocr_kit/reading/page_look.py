"""Measure a page without reading it: brightness and the angle of its lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 192  # pixels: the page is reduced to this for the angle
STEP, STEEPEST = 3, 45  # degrees
CLEARER = 1.5  # times: how much sharper the lines must be at another angle for the page to count as rotated


@dataclass(frozen=True)
class Look:
    """paper, ink: grey levels 0..255; 5 % of the page are above paper, 0.1 % of it are below ink.

    angle: rotation of the lines in degrees; 0 if they are level or if it is unclear. 90: the lines run from
    top to bottom (90 and -90 look the same). Upside down and upright look the same.
    """

    paper: int
    ink: int
    angle: int

    @property
    def blank(self) -> bool:
        """Whether the page is blank: all of it is within BLANK grey levels."""
        return self.paper - self.ink < BLANK


BLANK = 10


def look(image: Image.Image) -> Look:
    """Measure an RGB page."""
    grey = image.convert("L")
    grey.thumbnail((4 * SIDE, 4 * SIDE), Image.Resampling.BOX)
    levels = np.asarray(grey)
    ink, paper = (int(level) for level in np.quantile(levels, (0.001, 0.95)))
    return Look(paper, ink, 0 if paper - ink < BLANK else angle(grey))


def angle(grey: Image.Image) -> int:
    """The angle of the lines. The ink per row changes most from row to row if the lines are level."""
    levels = np.asarray(grey, dtype=np.float32)
    ink, paper = (float(level) for level in np.quantile(levels, (0.001, 0.95)))
    dark = Image.fromarray(np.clip((paper - levels) / max(1.0, paper - ink) * 255, 0, 255).astype(np.uint8))
    dark.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    square = Image.new("L", (SIDE, SIDE))
    square.paste(dark, ((SIDE - dark.width) // 2, (SIDE - dark.height) // 2))

    def sharpness(turned: int) -> float:
        rows = np.asarray(square.rotate(-turned, Image.Resampling.BILINEAR), dtype=np.float32).sum(1)
        return float(np.square(np.diff(rows)).sum())

    found = {turned: sharpness(turned) for turned in range(-STEEPEST, STEEPEST + 1, STEP)}
    found |= {90: sharpness(90)}
    best = max(found, key=found.__getitem__)
    return best if found[best] >= CLEARER * max(found[0], 1.0) else 0
