"""fp16 with the plan: only the page goes to the device, a few bytes per token return, nothing is blocked.

Every byte is explained, see helpers/traffic.py. The same at the official sizes: test_official_sizes.py.
"""

from __future__ import annotations

import functools

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.operators.prove.proof import prove
from deskocr_kit.reading.reader import Reader
from deskocr_kit.synthetic_pages import sample_pages
from model.fast import DEFAULTS
from model.slots import Slots
from tests.helpers.traffic import PIXELS, TABLES, moved, page_bytes, table_bytes

NEW, SIDE = 17, 512  # the mode tiny


def read(reader, guard: int = 0):
    reader.settings["no_repeat_ngram_size"] = guard
    with simulator.record() as seen:
        reading = reader.read(sample_pages.draw("5_notes").image, "free", "tiny", max_new_tokens=NEW)
    assert seen.refused == seen.fallbacks == seen.total("p2p") == 0 and len(reading.ids) == NEW
    return reading, seen


@pytest.fixture(scope="module")
def first():
    """(reader, recording of its first page)."""
    reader = Reader.load("nano", torch.device("npu:0"), "fp16")
    reader.model.config.eos_token_id = 1 << 40  # no such token, so that always NEW tokens are generated
    return reader, read(reader)[1]


@functools.cache
def plan(profile: str):
    """The choice of `deskocr prove` for the two slots that this profile lacks."""
    return prove(f"npu-sim:{profile}", ["fp16"], "nano", ["conv2d", "place_images"], repeats=1).plan


@pytest.mark.parametrize("profile", ["as-published", "as-believed"])
@pytest.mark.parametrize("guard", [0, 20])
def test_of_a_page_only_the_page_goes_up(first, profile, guard):
    reader, _ = first
    place, plain = "reference", vars(Slots()) | DEFAULTS
    if profile == "as-believed":
        place = plan(profile).names("float16")["place_images"]["*"]
        reader.model.use_plan(plan(profile).functions("float16"))
    with simulator.using(profile):
        reading, seen = read(reader, guard)
    reader.model.use_plan(plain)
    up, down = page_bytes(
        reader.model.config, side=SIDE, prompt=reading.prompt_tokens, image_tokens=reading.image_tokens,
        new=NEW, itemsize=2, ends=1, listed=2 if guard else 0, place=place,
    )  # fmt: skip
    assert (moved(seen, "h2d"), moved(seen, "d2h")) == (up, down)
    assert seen.h2d_bytes < 1.001 * up[PIXELS] and seen.d2h_bytes < 64 * NEW


def test_the_first_page_of_a_size_moves_the_position_tables_once(first):
    reader, seen = first
    up, down = table_bytes(reader.model.config, SIDE, 2)
    assert (moved(seen, "h2d")[TABLES], moved(seen, "d2h")[TABLES]) == (up, down)


def test_a_copy_nobody_planned_is_named_by_its_line(first):
    """The fault that this file must detect: everything to the host and back, as in a CPU fallback."""
    from deskocr_kit.operators.substitutes.registry import candidates

    reader, _ = first
    plain = reader.model.slots.place_images
    reader.model.use_plan({"place_images": candidates("place_images")["cpu_fallback"]})
    _, seen = read(reader)
    reader.model.use_plan({"place_images": plain})
    extra = moved(seen, "d2h")["deskocr_kit/operators/substitutes/place_images.py"]
    assert extra > 2 * 73 * reader.model.config.decoder.width
