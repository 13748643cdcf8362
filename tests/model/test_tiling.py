"""Views, tile grids, modes and prompts: the steps from a page to its tokens."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from model.processing import (
    MODES,
    PROMPTS,
    Mode,
    build_inputs,
    count_image_tokens,
    find_mode,
    get_mode,
    load_image,
    make_views,
    resize,
    resolve_prompt,
    tile_grid,
    to_pixels,
)
from tests.helpers.golden_pages import GOLDEN, StubTokenizer, digest, page
from tests.helpers.recipes import to_pixels as recipe_pixels


def test_modes_have_the_official_sizes():
    for name, sizes in GOLDEN["modes"].items():
        assert MODES[name] == Mode(name, **sizes)


def test_tile_grids_equal_the_original():
    for width, height, wide, narrow in GOLDEN["tile_grid"]["rows"]:
        assert list(tile_grid(width, height)) == wide, (width, height)
        assert list(tile_grid(width, height, 2, 6)) == narrow, (width, height)


@pytest.mark.parametrize(("key", "largest"), [("2..9", 9), ("2..6", 6)])
def test_order_among_equal_areas_changes_no_grid(key, largest):
    """We sort the candidates; the original uses the order of a Python set."""
    order = GOLDEN["candidate_order"][key]

    def in_the_original_order(width, height):
        best, nearest = (1, 1), float("inf")
        for w, h in order:
            difference = abs(width / height - w / h)
            if difference < nearest:
                best, nearest = (w, h), difference
            elif difference == nearest and width * height > 0.5 * 640 * 640 * w * h:
                best = (w, h)
        return best

    for width in range(20, 3000, 37):
        for height in (*range(25, 3000, 61), width, 2 * width, 3 * width):
            assert tile_grid(width, height, 2, largest) == in_the_original_order(width, height), (
                width,
                height,
            )


def test_tile_grid_refuses_nonsense():
    with pytest.raises(ValueError, match="min_tiles <= max_tiles"):
        tile_grid(100, 100, 3, 2)
    with pytest.raises(ValueError, match="0x5"):
        tile_grid(0, 5)


def test_resize_does_not_depend_on_pillows_pass_order():
    """The goldens have both orders; ours must be horizontal first with every version of Pillow."""
    tiny = next(i for i in GOLDEN["images"] if i["name"] == "page")["modes"]["tiny"]["views"][0]
    assert tiny["sha256"] != tiny["sha256_pillow13"]
    assert digest(make_views(page(900, 1300, 1), "tiny").global_view) == tiny["sha256"]


def test_exif_rotation_equals_the_original():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    page(500, 300).save(file, "PNG", exif=exif)
    upright = load_image(file.getvalue())
    assert upright.size == (300, 500)
    assert digest(make_views(upright, "base").global_view) == GOLDEN["exif"]["view_sha256"]
    assert digest(upright) == digest(page(500, 300).transpose(Image.Transpose.ROTATE_270))


def test_pixels_equal_the_recipe_for_every_byte_value():
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    pixels = to_pixels(Image.fromarray(ramp))
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.from_numpy(recipe_pixels(ramp)))
    rounded = to_pixels(Image.fromarray(ramp), round_to_bf16=True)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, pixels.bfloat16().float())
    assert not torch.equal(rounded, pixels)


def test_tiles_are_row_major_and_of_image_size():
    source = page(1300, 700, 2)
    views = make_views(source, "gundam")
    w, h = views.grid
    assert (w, h) == (2, 1)
    sheet = np.asarray(resize(source, 640 * w, 640 * h))
    for i, tile in enumerate(views.tiles):
        r, c = divmod(i, w)
        assert np.array_equal(np.asarray(tile), sheet[r * 640 : (r + 1) * 640, c * 640 : (c + 1) * 640])


def test_deviation_tiles_follow_image_size_so_that_counts_and_features_agree():
    """The original cuts 640-pixel tiles but counts with image_size: features are then lost silently."""
    mode = find_mode(640, 512, True)
    assert mode.name == "custom"
    inputs = build_inputs(StubTokenizer(), PROMPTS["free"], page(1300, 700), mode)
    tiles, overview = inputs["images"][0]
    assert tuple(tiles.shape) == (2, 3, 512, 512)
    assert tuple(overview.shape) == (1, 3, 640, 640)
    features = (
        10 * 11 + 1 + 8 * (2 * 8 + 1)
    )  # overview, separator, one row of two 8x8 tiles with its newlines
    assert int(inputs["images_seq_mask"].sum()) == features


def test_find_mode_knows_the_named_ones():
    assert find_mode(1024, 640, True) is MODES["gundam"]
    assert get_mode("Gundam ") is MODES["gundam"]
    with pytest.raises(ValueError, match="unknown mode 'huge'; choose one of tiny, small"):
        get_mode("huge")
    for bad in (0, 63, 640.0, True, "640"):
        with pytest.raises(ValueError, match="image_size"):
            Mode("x", 640, bad, False)


def test_views_want_rgb():
    with pytest.raises(ValueError, match="colour mode L"):
        make_views(Image.new("L", (10, 10)), "tiny")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (2, 3)])
def test_extreme_shapes_work_in_every_mode(size, mode):
    views = make_views(Image.new("RGB", size, (10, 200, 30)), mode)
    inputs = build_inputs(StubTokenizer(), PROMPTS["free"], Image.new("RGB", size), mode)
    side = MODES[mode].base_size if MODES[mode].crop_mode else MODES[mode].image_size
    assert views.global_view.size == (side, side)
    assert (10, 200, 30) in views.global_view.getcolors(1 << 20)[0] + views.global_view.getcolors(1 << 20)[-1]
    assert int(inputs["images_seq_mask"].sum()) == count_image_tokens(mode, views.grid)


def test_prompts_by_name_and_free_text():
    assert len(PROMPTS) == 6
    assert resolve_prompt("free") == "<image>\nFree OCR."
    assert resolve_prompt(" Document ") == PROMPTS["document"]
    assert (
        resolve_prompt("locate", "the red cat") == "<image>\nLocate <|ref|>the red cat<|/ref|> in the image."
    )
    assert resolve_prompt(PROMPTS["locate"], "a") == resolve_prompt("locate", "a")
    for free in ("<image>\nWhat is the total?", "Was steht hier?", "Transcribe", "读出文字"):
        assert resolve_prompt(free) == free


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", None, "empty"),
        ("  \n", None, "empty"),
        ("locate", None, "needs a target"),
        ("locate", " ", "needs a target"),
        ("locate", "x<|/ref|>", "special tag"),
        ("free", "cat", "only the prompt"),
        ("documnet", None, "did you mean 'document'"),
    ],
)
def test_unclear_prompts_are_refused(text, target, message):
    with pytest.raises(ValueError, match=message):
        resolve_prompt(text, target)
