"""The bytes that a page may move between host and device, computed from its sizes, and those recorded.

    up, down = page_bytes(config, side=512, prompt=83, image_tokens=73, new=17, itemsize=2)

Both are {file of the copying line: bytes}, so that an unexpected copy is named by its source.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from model import DeepseekOCRConfig
from tests.helpers.paths import ROOT

TABLES = "model/fast/position_tables.py"
LOOP = "model/greedy.py"
PIXELS = "model/network.py"
EXPERTS = "model/fast/moe.py"
PLACES = {"reference": "model/slots.py", "index_copy": "deskocr_kit/operators/substitutes/place_images.py"}


def moved(recording, kind: str) -> dict[str, int]:
    """{file that made the copies: bytes} of a recording; kind "h2d" or "d2h"."""
    found: Counter = Counter()
    for row in recording.rows():
        if row["kind"] == kind:
            found[Path(row["site"].rpartition(":")[0]).relative_to(ROOT).as_posix()] += row["bytes"]
    return dict(found)


def page_bytes(
    config: DeepseekOCRConfig,
    *,
    side: int,
    prompt: int,
    image_tokens: int,
    new: int,
    itemsize: int,
    ends: int = 0,
    listed: int = 0,
    place: str = "reference",
) -> tuple[dict[str, int], dict[str, int]]:
    """One view of `side` pixels, `prompt` ids of which `image_tokens` placeholders, `new` tokens.

    Up: the pixels in the dtype of the weights; the ids (int64) once; each end token (int64); the n-gram
    guard's whitelist (int64, `listed`); where the picture goes, as a bool per id or an int64 per place.
    Down: per token its id, its logit (is it finite?) and its log-probability, int64 each, the floats as
    bits; and once in each expert layer of the prompt how many rows every expert has (int32): the
    slices of a grouped product are cut by the host.
    """
    decoder = config.decoder
    up = {
        PIXELS: 3 * side * side * itemsize,
        LOOP: 8 * prompt + 8 * ends,
        PLACES[place]: 8 * image_tokens if place == "index_copy" else prompt,
    }
    if listed:
        up["model/ngram.py"] = 8 * listed
    down = {
        LOOP: 3 * 8 * new,
        EXPERTS: 4 * decoder.experts * (decoder.layers - decoder.dense_layers),
    }
    return up, down


def table_bytes(config: DeepseekOCRConfig, side: int, itemsize: int) -> tuple[int, int]:
    """(up, down) of the position tables that a view of `side` pixels needs in another size: resized on the
    host once per size, at the first page.
    """
    sam, clip = config.sam, config.clip
    grid, clip_grid = side // sam.patch, side // 64
    up = down = 0
    for stored, wanted, width in ((sam.grid, grid, sam.width), (clip.grid, clip_grid, clip.width)):
        if stored != wanted:
            down, up = down + stored**2 * width, up + wanted**2 * width
    if sam.grid != grid:
        tables = 2 * len(sam.global_blocks)  # rows and columns; those of the windows always fit
        down, up = down + tables * (2 * sam.grid - 1) * sam.head_dim, up + tables * grid**2 * sam.head_dim
    return up * itemsize, down * itemsize
