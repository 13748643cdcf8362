"""A second implementation: transformers 5.x contains the same network as `unlimited_ocr`.

It shares no code with the original or with our model, reads the same checkpoint with its own conversion of
names, and must produce our logits and our tokens. Its only difference, a sliding window over decoded tokens,
is so wide here that it has no effect.
"""

from __future__ import annotations

import functools
import importlib.util

import pytest
import torch

from deskocr_kit.baselines.transformers_model import load_peer
from deskocr_kit.baselines.transformers_model import peer_inputs as translated
from model import loading
from tests.helpers.golden import CASES, CHECKPOINT, INDEX, encoding_once, inputs, tensors

pytestmark = pytest.mark.skipif(  # importorskip would import it in every process of pytest-xdist
    importlib.util.find_spec("transformers.models.unlimited_ocr") is None,
    reason="this transformers has no unlimited_ocr (5.x has it): no second opinion to ask",
)

LOGITS = 5e-4  # goldens/README.md; the two agree to 3e-5 there


@pytest.fixture(scope="module", autouse=True)
def _pages_are_encoded_once(golden_model):
    with encoding_once(golden_model):
        yield


@pytest.fixture(scope="module")
def second():
    """The peer with the golden weights. No tensor may be missing or unused. It encodes each view once."""
    peer = load_peer(CHECKPOINT, loading.read_config(CHECKPOINT))
    tower, known = peer.model.vision_tower, {}
    encode = tower.forward

    def remembered(pixels, **how):
        if id(pixels) not in known:
            known[id(pixels)] = pixels, encode(pixels, **how)
        return known[id(pixels)][1]

    tower.forward = remembered
    return peer


@functools.cache
def peer_inputs(case: str) -> dict:
    """The golden inputs with the names that the peer uses."""
    return translated(inputs(case), [(bool(each["base"]), each["crop"]) for each in INDEX[case]["samples"]])


@pytest.mark.parametrize("case", CASES)
def test_logits(golden_model, second, case):
    given = inputs(case)
    attended = given["attention_mask"].bool()
    positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        ours = golden_model(**given).logits[attended]
        theirs = second(**peer_inputs(case), position_ids=positions).logits[attended]
    assert (ours - theirs).abs().max().item() < LOGITS


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(golden_model, second, case):
    given = inputs(case)
    n = given["input_ids"].shape[1]
    ours = golden_model.generate(**given, max_new_tokens=24, min_new_tokens=24)[:, n:]
    asked = peer_inputs(case)
    theirs = second.generate(**asked, max_new_tokens=24, min_new_tokens=24, do_sample=False)[:, n:]
    assert ours.tolist() == theirs.tolist() == tensors(case)["gen24_noeos"].tolist()


def test_the_second_opinion_is_not_an_echo(golden_model, second):
    """A change of one weight of the peer must show, else the comparisons above prove nothing."""
    given, weight = inputs("g640"), second.model.language_model.layers[2].mlp.experts.down_proj
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(0.5)
            theirs = second(**peer_inputs("g640")).logits
            ours = golden_model(**given).logits
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert (ours - theirs).abs().max().item() > 100 * LOGITS
