"""compare_generated: the same text, near ties explained, wrong layers not excused."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torch.nn as nn

from deskocr_kit import compare_generated, port_module
from deskocr_kit.course import build_llava, llava_inputs
from tests.helpers.guest_models import models, padded

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    return build_llava()


def test_the_same_model_generates_the_same(model):
    found = compare_generated(model, copy.deepcopy(model), llava_inputs(), 6)
    assert found.same and found.ok and found.error == 0 and found.peer is None
    assert repr(found).startswith("6 of 6 generated tokens are the same\nscores ≈ relative error 0.0e+00")
    ids = model.generate(**llava_inputs(), max_new_tokens=6, do_sample=False)
    assert torch.equal(ids[:, -6:], found.reference)


def test_the_candidates_own_text_is_equal_exactly_if_no_position_differs(model):
    """Generating freely gives the same tokens up to the first difference that is found."""
    ported = port_module(model, "cpu", "bf16").module
    found = compare_generated(model, ported, llava_inputs(), 8)
    assert found.ok and found.peer == found.error
    given = llava_inputs() | {"pixel_values": llava_inputs()["pixel_values"].bfloat16()}
    free = ported.generate(**given, max_new_tokens=8, do_sample=False)[0, -8:]
    equal = (free == found.reference[0]).int().cumprod(0).sum().item()
    assert equal == min((row.position for _, row in found.different), default=8)


def test_a_near_tie_is_explained():
    """Two tokens with equal weights, but for less than fp16 can show: rounding decides."""
    model = build_llava()
    best = compare_generated(model, model, llava_inputs(), 1).reference[0, 0].item()
    other = best - 1
    head = model.get_output_embeddings().weight.data
    head[other] = head[best] * (1 - 1e-5)  # the first of two equal scores is chosen
    assert compare_generated(model, model, llava_inputs(), 1).reference[0, 0] == best
    found = compare_generated(model, port_module(model, "cpu", "fp16").module, llava_inputs(), 1)
    assert found.rows[0][0].ours == other and not found.same and found.near_ties == 1 and found.ok
    assert "0 of 1 generated tokens are the same, 1 differ in a near tie" in repr(found)


def test_a_wrong_layer_is_not_excused_by_the_error_that_it_makes(model):
    """Its typical error makes every margin small; the scores exceed what the dtype explains."""
    wrong = port_module(model, "cpu", "fp16").module
    (norm,) = (m for n, m in wrong.named_modules() if re.search("language.*layers.1.input_layernorm$", n))
    norm.weight.data *= 1.5
    found = compare_generated(model, wrong, llava_inputs(), 8)
    assert not found.ok and found.error > found.budget and "TOO LARGE" in repr(found)


def test_a_difference_without_a_near_tie_is_shown(model):
    wrong = copy.deepcopy(model)
    best = compare_generated(model, model, llava_inputs(), 1).reference[0, 0].item()
    with torch.no_grad():
        wrong.get_output_embeddings().weight[best] *= -1

    class Tokenizer:
        def decode(self, ids):
            return f"<{ids[0]}>"

    found = compare_generated(model, wrong, llava_inputs(), 1, Tokenizer())
    assert not found.ok and found.near_ties == 0
    assert "1 differ WITHOUT a near tie" in repr(found) and f"'<{best}>'" in repr(found)


def guest(name: str):
    each = models()[name]
    if not each.here:
        pytest.skip("the config of this model is that of transformers 5")
    return each


def test_several_samples_and_their_ends():
    model = guest("Qwen2, eager, left padding").build()
    first = compare_generated(model, model, padded(), 5).reference
    model.generation_config.eos_token_id = first[0, 1].item()
    model.generation_config.pad_token_id = 0
    found = compare_generated(model, copy.deepcopy(model), padded(), 5)
    assert len(found.rows[0]) == 2 and len(found.rows) == 2 and found.ok


@pytest.mark.parametrize("name", ["Whisper", "TrOCR", "Pix2Struct"])
def test_encoder_and_decoder(name):
    each = guest(name)
    model = each.build()
    found = compare_generated(model, port_module(model, "cpu", "bf16").module, each.given(), 4)
    assert found.ok and sum(map(len, found.rows)) >= 1


def test_what_cannot_generate():
    with pytest.raises(ValueError, match="Linear has no generate"):
        compare_generated(nn.Linear(1, 1), nn.Linear(1, 1), {})
