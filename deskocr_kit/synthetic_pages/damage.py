"""Damage to clean pages, from hardly visible to unreadable: what a page outside nano's domain looks like.

Each function takes a random source and an RGB page and returns a page of the same size. The severity is drawn
evenly from the range that the function states.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from PIL import Image

NOISE = (5.0, 120.0)  # standard deviation, grey levels of 255
ROTATION = (0.1, 4.0)  # degrees, to either side
PAPER = (60, 250)  # grey level of white paper after darkening; black stays 0
SENSOR = 6.0  # standard deviation of the noise that darkness makes visible, grey levels
SMALL = (0.5, 1.0)  # factor of all lengths; the rest of the page is white


def noise(rng: random.Random, image: Image.Image) -> Image.Image:
    """Gaussian noise of NOISE, the same in all channels."""
    return _with_noise(rng, np.asarray(image, dtype=np.float32), rng.uniform(*NOISE))


def rotation(rng: random.Random, image: Image.Image) -> Image.Image:
    """Turned by an angle of ROTATION around the centre; the corners are white."""
    angle = rng.choice((-1, 1)) * rng.uniform(*ROTATION)
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(255, 255, 255))


def darkness(rng: random.Random, image: Image.Image) -> Image.Image:
    """White paper at a grey level of PAPER, with the noise of a sensor."""
    return _with_noise(rng, np.asarray(image, dtype=np.float32) * (rng.randint(*PAPER) / 255), SENSOR)


def small_print(rng: random.Random, image: Image.Image) -> Image.Image:
    """Reduced by a factor of SMALL and put anywhere on a white page."""
    factor = rng.uniform(*SMALL)
    width, height = (max(1, round(side * factor)) for side in image.size)
    page = Image.new("RGB", image.size, (255, 255, 255))
    place = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    page.paste(image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0), place)
    return page


DAMAGE: dict[str, Callable[[random.Random, Image.Image], Image.Image]] = {
    "noise": noise,
    "rotation": rotation,
    "darkness": darkness,
    "small_print": small_print,
}


def _with_noise(rng: random.Random, levels: np.ndarray, deviation: float) -> Image.Image:
    drawn = np.random.default_rng(rng.getrandbits(32)).normal(0, deviation, (*levels.shape[:2], 1))
    return Image.fromarray(np.clip(levels + drawn, 0, 255).astype(np.uint8))
