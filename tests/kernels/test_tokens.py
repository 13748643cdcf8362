"""Whole models with kernels: the tokens of the golden cases, and of the three models of the family.

By default kernels are in the slots that decode; the slow tests put one into every slot.
"""

from __future__ import annotations

import pytest
import torch

from deskocr_kit.operators.kernels.candidates import CANDIDATES
from deskocr_kit.operators.kernels.launch import listening
from deskocr_kit.operators.substitutes.registry import candidates
from model import DeepseekOCRForCausalLM
from model.fast import DEFAULTS
from model.slots import Slots
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.golden import CASES, inputs, tensors

DECODING = ("decode_layer", "choose")  # rms_norm would also serve the prompt, where it takes long
#: How the golden tokens were made: {name of the golden: options of `generate`}.
HOW = {
    "gen24": {"max_new_tokens": 24},
    "gen48_ngram3": {"max_new_tokens": 48, "no_repeat_ngram_size": 3},
}


def with_kernels(model, slots):
    """The model with the kernels of these slots, and the defaults elsewhere."""
    model.use_plan({**vars(Slots()), **DEFAULTS, **{slot: candidates(slot)["triton"] for slot in slots}})
    return model


def golden_tokens(model, case: str, name: str) -> list[list[int]]:
    """The new tokens of one golden case."""
    given = inputs(case)
    return model.generate(**given, **HOW[name])[:, given["input_ids"].shape[1] :].tolist()


@pytest.fixture
def golden_with_kernels(golden_model):
    yield with_kernels(golden_model, DECODING)
    with_kernels(golden_model, ())


def test_the_first_golden_tokens_with_kernels(golden_with_kernels):
    given = inputs("text")
    ids = golden_with_kernels.generate(**given, max_new_tokens=8)
    assert ids[:, given["input_ids"].shape[1] :].tolist() == tensors("text")["gen24"][:, :8].tolist()


@pytest.mark.slow  # two or three minutes; the test above is their shortest part
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", HOW)
def test_golden_tokens_with_kernels(golden_with_kernels, case, name):
    """The original's own tokens: with its end token, in batches with padding, with the n-gram guard."""
    assert golden_tokens(golden_with_kernels, case, name) == tensors(case)[name].tolist()


@pytest.mark.slow  # an interpreted page takes half a minute
@pytest.mark.parametrize("case", ["g640", "batch2_img_text"])
def test_golden_tokens_with_a_kernel_in_every_slot(golden_model, case):
    expected = tensors(case)["gen24"].tolist()
    try:
        assert golden_tokens(with_kernels(golden_model, CANDIDATES), case, "gen24") == expected
    finally:
        with_kernels(golden_model, ())


@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_the_family_with_kernels(name):
    """A page, with the n-gram guard; Unlimited-OCR goes around its ring of three."""
    config = tiny(name, **({"window": 3} if name == "unlimited-ocr" else {}), num_hidden_layers=2)
    model = DeepseekOCRForCausalLM.random(config, seed=3)
    ask = {**batch(config, [[(1, 1)]]), "max_new_tokens": 6, "eos_token_id": None}
    ask["no_repeat_ngram_size"] = 2
    expected = model.generate(**ask)
    started = []
    with listening(lambda launch: started.append(launch.name)):
        ours = with_kernels(model, DECODING).generate(**ask)
    assert torch.equal(ours, expected)
    assert started.count("rotate_write_attend_kernel") == 5 * config.decoder.layers


@pytest.mark.slow  # an interpreted page takes half a minute
@pytest.mark.parametrize("name", NAMES)
def test_tokens_of_the_family_with_a_kernel_in_every_slot(name):
    config = tiny(name)
    model = DeepseekOCRForCausalLM.random(config, seed=3)
    ask = {**batch(config, [[(2, 1)], [(1, 1)]]), "max_new_tokens": 6, "eos_token_id": None}
    expected = model.generate(**ask)
    assert torch.equal(with_kernels(model, CANDIDATES).generate(**ask), expected)
