"""The official sizes in fp16 on the simulated NPU, with the plan.

Both vision towers, one dense and two expert layers of the decoder. The weights are random: the text has no
meaning, but every byte moves as with the official ones.

2.5 GB of weights, a few minutes: part of `make test-slow`.
"""

from __future__ import annotations

import functools

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.compare import headroom
from deskocr_kit.compare.headroom import LIMIT
from deskocr_kit.operators.prove.proof import prove
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.processing import build_inputs
from tests.helpers.golden_pages import GoldenTokenizer
from tests.helpers.recipes import synth_image
from tests.helpers.traffic import TABLES, moved, page_bytes, table_bytes

pytestmark = pytest.mark.slow
LAYERS, SIDE, NEW = (
    3,
    512,
    17,
)  # decoder layers; the mode tiny; tokens: the host checks after 16 and at the end


@pytest.fixture(scope="module")
def model() -> DeepseekOCRForCausalLM:
    config = DeepseekOCRConfig(num_hidden_layers=LAYERS)
    made = DeepseekOCRForCausalLM.random(config, torch.float16, "npu:0").requires_grad_(False)
    assert sum(p.nbytes for p in made.parameters()) > 2.4e9
    return made


@pytest.fixture(scope="module")
def page() -> dict:
    from PIL import Image

    return build_inputs(
        GoldenTokenizer(), "<image>\nFree OCR.", Image.fromarray(synth_image(600, 800, 1)), "tiny"
    )


@functools.cache
def plan(profile: str) -> dict:
    """A plan proved here at the official sizes, for the two slots that this profile can lack."""
    report = prove(f"npu-sim:{profile}", ["fp16"], "official-sizes", ["conv2d", "place_images"], repeats=1)
    assert not report.faults()
    return report.plan.functions("float16")


@pytest.fixture(scope="module")
def seen(model, page) -> dict:
    """{"profile, page": (recording, features of the page)}; the pages run one after the other."""
    found, look = {}, model.model.encode_views

    def keep(pixels):
        keep.last = look(pixels)
        return keep.last

    model.model.encode_views = keep
    for profile, pages in (("as-published", 2), ("as-believed", 1)):
        with simulator.using(profile):
            model.use_plan(plan(profile))
            for each in range(pages):
                with simulator.record() as recording:
                    model.generate(**page, max_new_tokens=NEW, eos_token_id=None, no_repeat_ngram_size=20)
                found[profile, each] = recording, keep.last.float().cpu()
                print(f"\n{profile}, page {each}: {recording.summary()}", end="")
    model.model.encode_views = look
    return found


def test_nothing_is_blocked_and_nothing_falls_back(seen):
    for recording, _ in seen.values():
        assert recording.refused == recording.fallbacks == recording.ai_cpu == 0


@pytest.mark.parametrize("which", [("as-published", 1), ("as-believed", 0)], ids=str)
def test_of_a_page_only_the_page_goes_up_and_of_a_token_16_bytes_come_down(model, page, seen, which):
    recording, _ = seen[which]
    prompt, vision = page["input_ids"].shape[1], int(page["images_seq_mask"].sum())
    assert vision == 73
    up, down = page_bytes(
        model.config, side=SIDE, prompt=prompt, image_tokens=vision, new=NEW, itemsize=2, place="index_copy"
    )
    assert moved(recording, "h2d") == up and moved(recording, "d2h") == down
    assert recording.syncs == 2 + (LAYERS - 1)  # two checks; the rows of each expert, once per expert layer


def test_the_first_page_of_a_size_moves_the_position_tables_too(model, seen):
    first, second = seen["as-published", 0][0], seen["as-published", 1][0]
    up, down = table_bytes(model.config, SIDE, 2)
    assert first.h2d_bytes - second.h2d_bytes == moved(first, "h2d")[TABLES] == up
    assert first.d2h_bytes - second.d2h_bytes == moved(first, "d2h")[TABLES] == down


def test_memory_is_the_weights_and_little_more(model, seen):
    weights = sum(p.nbytes for p in model.parameters())
    for recording, _ in seen.values():
        assert weights < recording.peak_bytes < 1.1 * weights


def test_the_substitutes_see_what_the_convolutions_see(seen):
    ours, native = seen["as-believed", 0][1], seen["as-published", 1][1]
    assert bool(native.isfinite().all()) and (ours - native).norm() / native.norm() < 1e-2


def test_nothing_overflows_on_the_way(model, page):
    with simulator.using("as-believed"):
        model.use_plan(plan("as-believed"))
        given = {name: value for name, value in page.items() if name != "attention_mask"}
        found = headroom(model, lambda: model(**given, logits_to_keep=1))
    print(f"\nlargest layer output: {max(found.layers.values()):.1f}", end="")
    assert found.dtype == "float16" and max(found.layers.values()) < LIMIT
    assert not [p for p in found.peaks if "float16" in p.dtypes and p.largest >= LIMIT]
