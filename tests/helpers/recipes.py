"""The inputs of the golden data, made with integer arithmetic only, so bit-exact on every platform."""

from __future__ import annotations

import numpy as np


def synth_image(w, h, kind=0):
    """Picture number `kind` as uint8 (h, w, 3)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.int64)
    if kind == 0:  # gradients with an xor texture
        channels = (
            3 * x + 5 * y + ((x >> 3) ^ (y >> 2)) * 7,
            7 * x + 2 * y + 31 + ((x >> 4) ^ (y >> 4)) * 11,
            x * y // 64 + 97,
        )
    elif kind == 1:  # like a page of text: dark blocks in rows on white
        line = ((y // 12) % 3 != 2) & ((x // 9 + (y // 36) * 5) % 7 < 5)
        ink = ((x * 2654435761 + y * 40503) >> 5) & 63
        channels = (
            np.where(line, ink, 250 - (ink >> 3)),
            np.where(line, ink + 8, 252 - (ink >> 3)),
            np.where(line, ink + 16, 255 - (ink >> 4)),
        )
    elif kind == 2:  # rings and checks
        ring = ((x - w // 2) ** 2 + (y - h // 2) ** 2) // 97
        check = (((x // 32) + (y // 32)) & 1) * 128
        channels = (ring + check, 2 * ring + 64, 255 - ((ring >> 2) + check))
    else:  # noise of low contrast
        noise = (x * 73856093) ^ (y * 19349663) ^ (kind * 83492791)
        channels = tuple(64 + ((noise >> shift) & 127) for shift in (7, 11, 15))
    return np.stack([c & 255 for c in channels], -1).astype(np.uint8)


def to_pixels(picture):
    """uint8 (h, w, 3) -> float32 (3, h, w): (v/255 - 0.5) / 0.5, each step in float32."""
    values = picture.astype(np.float32) / np.float32(255)
    values = (values - np.float32(0.5)) / np.float32(0.5)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def tiles(picture, across, down, size=640):
    """uint8 (down*size, across*size, 3) -> float32 (across*down, 3, size, size), row by row."""
    corners = [(r * size, c * size) for r in range(down) for c in range(across)]
    return np.stack([to_pixels(picture[y : y + size, x : x + size]) for y, x in corners])


def text_ids(n, seed, lo=3, hi=480):
    """n token ids from a linear congruential generator; no random library involved."""
    state, ids = seed * 7919 + 12345, []
    for _ in range(n):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        ids.append(lo + (state >> 8) % (hi - lo))
    return ids
