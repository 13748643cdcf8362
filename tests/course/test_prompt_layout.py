"""The rows of a prompt: one letter per token, in the order of the network; the pictures show the page."""

from __future__ import annotations

import pytest
from PIL import Image

from deskocr_kit.course.drawings.prompt_layout import (
    LETTERS,
    cells,
    draw_prompt,
    draw_views,
    prompt_rows,
    sheet,
)
from model.modes import MODES, Mode
from model.processing import build_inputs, count_image_tokens


class Letters:
    """A tokenizer of one token per character."""

    def encode(self, text, add_special_tokens=False):
        return [ord(c) for c in text]

    def convert_tokens_to_ids(self, token):
        return 5


def inputs(prompt, pages, mode):
    return build_inputs(Letters(), prompt, pages, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size, grid", [((300, 200), (1, 1)), ((1024, 1536), (2, 3))])
def test_one_letter_per_token(mode, size, grid):
    given = inputs("<image>\nRead.", Image.new("RGB", size), mode)
    rows = prompt_rows(given, mode)
    joined = "".join(rows)
    assert len(joined) == given["input_ids"].shape[1] and set(joined) <= set(LETTERS)
    grid = grid if MODES[mode].crop_mode else (1, 1)
    assert sum(joined.count(c) for c in "lgNS") == count_image_tokens(mode, grid)
    mask = given["images_seq_mask"][0].tolist()
    assert [c in "lgNS" for c in joined] == mask
    assert rows[0] == "B" and rows[-1] == "t" * len("\nRead.")


def test_tiles_come_first_and_text_may_stand_before_the_page():
    rows = prompt_rows(inputs("A <image> B", Image.new("RGB", (1024, 1536)), "gundam"), "gundam")
    assert rows[0] == "Btt" and rows[1] == "l" * 20 + "N" and rows[31] == "g" * 16 + "N"
    assert rows[-2:] == ["S", "tt"]


def test_padding_of_a_batch():
    page = Image.new("RGB", (64, 64))
    given = inputs(["<image>\nlong text", "<image>x"], [page, page], "tiny")
    assert prompt_rows(given, "tiny", 1)[0] == "_" * 9 + "B"


def test_the_wrong_mode_is_refused():
    given = inputs("<image>", Image.new("RGB", (64, 64)), "tiny")
    with pytest.raises(ValueError, match="73 placeholders in the prompt, small"):
        prompt_rows(given, "small")
    assert [cells(side) for side in (512, 640, 1024, 1280)] == [8, 10, 16, 20]


def test_pictures():
    page = sheet([Image.new("RGB", (512, 512), "white")] * 5)
    assert page.size == (1024, 1536)
    titles = [axes.get_title() for axes in draw_views(page).axes]
    assert "tiny: 512 px\n73 tokens" in titles and "the tiles of gundam\n2 across, 3 down" in titles
    assert len(titles) == 6, "five modes and the tiles of one"
    (axes,) = draw_prompt(["B", "ggN", "S", "t"]).axes
    assert len(axes.patches) == 6
    assert "g: cell of the whole view, 2" in [t.get_text() for t in axes.get_legend().get_texts()]


@pytest.mark.parametrize("crop, panels", [(False, 7), (True, 8)])
def test_a_sixth_mode_gets_its_place(monkeypatch, crop, panels):
    monkeypatch.setitem(MODES, "wide", Mode("wide", 1536, 640, crop))
    drawn = draw_views(Image.new("RGB", (1024, 1536), "white")).axes
    titles = [axes.get_title() for axes in drawn if axes.axison]
    assert len(drawn) == 9 and len(titles) == panels and all(titles)
    assert any(title.startswith("wide: ") for title in titles)
    assert ("the tiles of wide\n2 across, 3 down" in titles) == crop
