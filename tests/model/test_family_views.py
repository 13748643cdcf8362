"""Tile choice and views of DeepSeek-OCR-2 and Unlimited-OCR at 200 page sizes, against transformers.

DeepSeek-OCR-2 runs live, with the Pillow processor: all pixels must be equal (within one level on a
strip, and within four with Pillow 13, which chooses the order of the filters by their cost).
The processor of Unlimited-OCR needs torchvision; its results are stored (tests/data/make_unlimited_views.py):
grids and padding must be equal, and the means of blocks within 0.5 of 255, because torchvision rounds single
pixels in another way than Pillow, by up to 2.
"""

from __future__ import annotations

import json

import numpy as np
import PIL
import pytest
import torch

from model.modes import get_mode
from model.official import DEEPSEEK_OCR, DEEPSEEK_OCR_2, UNLIMITED_OCR
from model.tiling import count_image_tokens, make_views, pad, tile_grid, to_pixels
from tests.helpers.family_pages import page, sizes, summary
from tests.helpers.paths import DATA

STORED = {tuple(each["size"]): each for each in json.loads(
    (DATA / "unlimited_views.json").read_text(encoding="utf-8"))["pages"]}  # fmt: skip
GUNDAM = get_mode("gundam", UNLIMITED_OCR)
BASE = get_mode("base", UNLIMITED_OCR)
SOME = sizes()[::20]  # by default; all of them in the slow test


def test_the_sizes():
    assert len(sizes()) == len(set(sizes())) == 200 and list(STORED) == sizes()


def test_every_grid_of_unlimited_ocr():
    found = {(w, h): list(tile_grid(w, h, max_tiles=32)) if max(w, h) > 640 else [1, 1] for w, h in sizes()}
    assert found == {size: each["grid"] for size, each in STORED.items()}
    assert max(w * h for w, h in found.values()) > 28


def check_unlimited(size: tuple[int, int]) -> None:
    views, stored = make_views(page(*size), GUNDAM), STORED[size]
    assert list(views.grid) == stored["grid"]
    ours = summary(to_pixels(views.global_view).numpy())
    assert ours["box"] == stored["view"]["box"]
    shown = [
        ours["blocks"],
        *(summary(to_pixels(views.tiles[i]).numpy())["blocks"] for i in (0, -1) if views.tiles),
    ]
    for mine, theirs in zip(shown, [stored["view"]["blocks"], *stored["tiles"]], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=0.5)
    whole = make_views(page(*size), BASE)
    assert whole.grid == (1, 1) and not whole.tiles
    assert summary(to_pixels(whole.global_view).numpy())["box"] == stored["without_tiles"]


@pytest.fixture(scope="module")
def processor():
    module = pytest.importorskip(
        "transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2",
        reason="this transformers has no deepseek_ocr2 (5.23 has it)",
    )
    return module.DeepseekOcr2ImageProcessorPil()


def check_second(processor, size: tuple[int, int]) -> None:
    mode = get_mode("gundam", DEEPSEEK_OCR_2)
    views, theirs = make_views(page(*size), mode), processor(page(*size), return_tensors="pt")
    tiles = int(theirs["num_local_patches"][0])
    assert tiles == len(views.tiles)
    # Pillow 12.3 filters a page of 3x2000 pixels down first, Pillow 13 any page for which that is cheaper;
    # `tiling.resize` always across first, see there for the bound.
    strip, free = max(size) > 100 * min(size), int(PIL.__version__.partition(".")[0]) >= 13
    atol = 4.01 / 127.5 if free else 1e-5
    above = atol if free else 1.01 / 127.5 if strip else 1e-5
    torch.testing.assert_close(to_pixels(views.global_view), theirs["pixel_values"][0], atol=above, rtol=0)
    if tiles:
        ours = torch.stack([to_pixels(tile) for tile in views.tiles])
        torch.testing.assert_close(ours, theirs["pixel_values_local"], atol=atol, rtol=0)
    assert count_image_tokens(mode, views.grid) == 256 + 1 + 144 * tiles


@pytest.mark.parametrize("size", SOME, ids=str)
def test_views(processor, size):
    check_unlimited(size)
    check_second(processor, size)


@pytest.mark.slow  # a minute: views of 200 pages, twice
def test_views_at_all_sizes(processor):
    for size in sizes():
        check_unlimited(size)
        if min(size) > 1:  # the peer cannot resize a side to 0 pixels
            check_second(processor, size)


def left_margin(width: int, like_pillow: bool) -> int:
    """Columns of padding left of a page of width x 1024 in a view of 1024."""
    return summary(to_pixels(pad(page(width, 1024), 1024, like_pillow)).numpy())["box"][0]


def test_where_the_rounding_differs():
    """An odd margin: ImageOps.pad rounds half to even, transformers rounds down."""
    assert (left_margin(701, True), left_margin(701, False)) == (162, 161)  # half of 323 is 161.5
    assert (left_margin(703, True), left_margin(703, False)) == (160, 160)  # half of 321 is 160.5


@pytest.mark.parametrize(
    ("checkpoint", "mode", "grid", "tokens"),
    [
        (DEEPSEEK_OCR, "gundam", (2, 3), 903),
        (UNLIMITED_OCR, "gundam", (2, 3), 903),
        (UNLIMITED_OCR, "base", (1, 1), 273),
        (DEEPSEEK_OCR_2, "gundam", (2, 3), 6 * 144 + 256 + 1),
        (DEEPSEEK_OCR_2, "gundam", (1, 1), 257),
        (DEEPSEEK_OCR_2, "small", (1, 1), 145),
        (DEEPSEEK_OCR_2, "base", (1, 1), 257),
    ],
)
def test_placeholders(checkpoint, mode, grid, tokens):
    assert count_image_tokens(get_mode(mode, checkpoint), grid) == tokens


def test_a_mode_of_another_model_is_named():
    with pytest.raises(ValueError, match=r"'tiny' of DeepSeek-OCR-2; choose one of small, base, gundam"):
        get_mode("tiny", DEEPSEEK_OCR_2)
    assert get_mode(get_mode("base"), UNLIMITED_OCR).checkpoint is UNLIMITED_OCR
