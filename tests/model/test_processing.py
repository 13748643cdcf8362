"""Page -> views -> token ids, compared with the original (tests/goldens/preprocess.json)."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
import torch

from model.processing import (
    MODES,
    PROMPTS,
    build_inputs,
    count_image_tokens,
    make_views,
    resolve_prompt,
    tile_grid,
    to_pixels,
    tokenize_prompt,
    valid_image_tokens,
)
from tests.helpers.golden_pages import GOLDEN, IMAGE_ID, StubTokenizer, digest, page


def rle(values):
    return [[value, len(list(run))] for value, run in groupby(values)]


def golden_views():
    for image in GOLDEN["images"]:
        for mode, want in image["modes"].items():
            yield pytest.param(image, mode, want, id=f"{image['name']}-{mode}")


@pytest.mark.parametrize(("image", "mode", "want"), list(golden_views()))
def test_views_and_layout_equal_the_original(image, mode, want):
    source = page(image["w"], image["h"], image["kind"])
    assert digest(source) == image["source_sha256"]
    views = make_views(source, mode)
    assert [digest(v) for v in [views.global_view, *views.tiles]] == [v["sha256"] for v in want["views"]]
    assert [list(views.grid)] == want["spatial_crop"]

    inputs = build_inputs(StubTokenizer(), PROMPTS["document"], source, mode)
    assert rle(inputs["input_ids"][0].tolist()) == want["input_ids_rle"]
    assert rle(inputs["images_seq_mask"][0].tolist()) == want["images_seq_mask_rle"]
    assert inputs["images_spatial_crop"].tolist() == want["spatial_crop"]
    assert int(inputs["images_seq_mask"].sum()) == want["n_image_tokens"]
    tiles, overview = inputs["images"][0]
    for (y, x, *rgb), pixel in zip(want["views"][0]["samples"], want["pixel_samples_bf16"], strict=False):
        assert np.asarray(views.global_view)[y, x].tolist() == rgb
        assert overview[0, :, y, x].tolist() == pixel
    assert (tiles.sum() == 0) == (views.grid == (1, 1))
    if mode == "gundam":
        free = build_inputs(StubTokenizer(), PROMPTS["free"], source, mode)
        assert rle(free["input_ids"][0].tolist()) == image["free_ocr_input_ids_rle"]


@pytest.mark.parametrize("row", GOLDEN["table"], ids=lambda row: "x".join(map(str, row["size"])))
def test_token_counts_equal_the_original(row):
    width, height = row["size"]
    for name, want in row["modes"].items():
        mode = MODES[name]
        tiled = mode.crop_mode and max(width, height) > 640
        grid = tile_grid(width, height) if tiled else (1, 1)
        assert list(grid) == want["spatial_crop"]
        assert count_image_tokens(mode, grid) == want["n_image_tokens"]
        assert valid_image_tokens(mode, (width, height), grid) == want["valid_img_tokens"]
    inputs = build_inputs(StubTokenizer(), PROMPTS["free"], page(width, height), "gundam")
    tiles, overview = inputs["images"][0]
    assert list(overview.shape) == row["modes"]["gundam"]["ori_shape"]
    assert list(tiles.shape) == row["modes"]["gundam"]["crop_shape"]
    assert inputs["input_ids"].shape[1] == row["modes"]["gundam"]["seq_len"]


def test_prompt_in_the_middle_is_stripped_like_the_original():
    want = GOLDEN["prompt_mid_image"]
    inputs = build_inputs(StubTokenizer(), want["prompt"], page(60, 40), "tiny")
    assert rle(inputs["input_ids"][0].tolist()) == want["input_ids_rle"]
    assert rle(inputs["images_seq_mask"][0].tolist()) == want["images_seq_mask_rle"]


def test_prompt_without_tag_can_be_laid_out_like_the_original():
    want = GOLDEN["prompt_without_image_tag"]
    inputs = build_inputs(StubTokenizer(), want["prompt"], page(60, 40), "tiny", repeat_untagged_prompt=True)
    assert rle(inputs["input_ids"][0].tolist()) == want["input_ids_rle"]
    assert rle(inputs["images_seq_mask"][0].tolist()) == want["images_seq_mask_rle"]


def test_deviation_prompt_without_tag_is_not_doubled():
    plain = build_inputs(StubTokenizer(), "Free OCR.", page(60, 40), "tiny")
    tagged = build_inputs(StubTokenizer(), PROMPTS["free"], page(60, 40), "tiny")
    assert torch.equal(plain["input_ids"], tagged["input_ids"])


def test_official_token_vectors_appear_in_the_layout():
    """The pieces of the stub are the golden vectors, so the layout tests above use the official ids."""
    vectors = dict(GOLDEN["token_ids"]["vectors"])
    for name in ("document", "free"):
        ids, mask = tokenize_prompt(StubTokenizer(), PROMPTS[name], 1, image_token_id=IMAGE_ID)
        assert ids == [0, *vectors[PROMPTS[name]]]
        assert mask == [False, True] + [False] * (len(ids) - 2)


def test_batches_are_left_padded():
    prompts = [PROMPTS["free"], "Free OCR.", PROMPTS["document"]]
    inputs = build_inputs(StubTokenizer(), prompts, [page(60, 40), None, page(700, 300)], "gundam")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    assert ids.dtype == mask.dtype == torch.int64
    assert inputs["images_seq_mask"].dtype == torch.bool
    lengths = mask.sum(1).tolist()
    assert lengths == [1 + 273 + 4, 1 + 3, 1 + 483 + 9]
    for row, keep, length in zip(ids, mask, lengths, strict=True):
        gap = ids.shape[1] - length
        assert row[:gap].tolist() == [2] * gap
        assert keep.tolist() == [0] * gap + [1] * length
        assert row[gap] == 0
    assert inputs["images_seq_mask"].sum(1).tolist() == [273, 0, 483]
    assert torch.equal(inputs["images_seq_mask"], ids == IMAGE_ID)
    assert inputs["images_spatial_crop"].tolist() == [[1, 1], [1, 1], [2, 1]]
    assert [float(t.abs().sum()) == 0 for pair in inputs["images"] for t in pair] == [
        True, False, True, True, False, False,
    ]  # fmt: skip
    alone = build_inputs(StubTokenizer(), prompts[2], page(700, 300), "gundam")
    assert torch.equal(alone["images"][0][0], inputs["images"][2][0])


def test_text_only_sample():
    inputs = build_inputs(StubTokenizer(), "Free OCR.", None, "tiny")
    assert inputs["input_ids"].tolist() == [[0, 21431, 126041, 16]]
    assert not inputs["images_seq_mask"].any()
    assert inputs["images_spatial_crop"].tolist() == [[1, 1]]


def test_dtype_and_rounding():
    source = page(100, 100)
    exact = build_inputs(StubTokenizer(), PROMPTS["free"], source, "tiny", round_to_bf16=False)["images"][0][
        1
    ]
    assert torch.equal(exact[0], to_pixels(make_views(source, "tiny").global_view))
    half = build_inputs(StubTokenizer(), PROMPTS["free"], source, "tiny", dtype=torch.float16)["images"][0][1]
    assert half.dtype == torch.float16
    assert torch.equal(half, exact.bfloat16().half())


@pytest.mark.parametrize(
    ("prompt", "pages", "message"),
    [
        ("<image> and <image>", page(9, 9), "2 <image> tags; a sample holds one page"),
        ("<image>\nFree OCR.", None, "no page was given"),
        (["Free OCR."] * 3, [None, None], "3 prompts for 2 pages"),
        ("Free OCR.", [], "1 prompts for 0 pages|0 pages"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompt, pages, message):
    with pytest.raises(ValueError, match=message):
        build_inputs(StubTokenizer(), prompt, pages, "tiny")


def test_a_tokenizer_without_the_image_token_is_refused():
    class Wrong(StubTokenizer):
        def convert_tokens_to_ids(self, token):
            return None

    with pytest.raises(ValueError, match="tokenizer does not know <image>"):
        build_inputs(Wrong(), PROMPTS["free"], page(9, 9), "tiny")
    inputs = build_inputs(Wrong(), PROMPTS["free"], page(9, 9), "tiny", image_token_id=7)
    assert int((inputs["input_ids"] == 7).sum()) == 73


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (r"<image>\nFree OCR.", "<image>\nFree OCR."),
        (r"<image>\r\n<|grounding|>Convert.", "<image>\n<|grounding|>Convert."),
        (r"<image>\n\nRead.", "<image>\n\nRead."),
        (r"<image>\nThe sign \nabla", "<image>\nThe sign \\nabla"),
        (r"Find \nu in the text", r"Find \nu in the text"),
        ("<image>\nFree OCR.", "<image>\nFree OCR."),
    ],
)
def test_a_typed_backslash_and_n_behind_the_image_is_a_line_break(typed, meant):
    """As copied from a README into a shell, where the quotes do not make it one."""
    assert resolve_prompt(typed) == meant
    tokens = [tokenize_prompt(Letters(), prompt, 1, image_token_id=-1) for prompt in (typed, meant)]
    assert tokens[0] == tokens[1]


class Letters:
    def encode(self, text, add_special_tokens):
        return list(map(ord, text))
