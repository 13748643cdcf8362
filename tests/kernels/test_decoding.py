"""A whole model with kernels in its slots gives the tokens that it gives without them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.kernels import choose as kernels
from deskocr_kit.operators.kernels.launch import Launch, listening
from deskocr_kit.operators.substitutes.registry import candidates
from model import DeepseekOCRForCausalLM
from model.choose import Rules, choose
from model.decode_layer import LayerWeights, decode_layer
from tests.helpers.paths import NANO

PLAN = ("decode_layer", "choose", "rms_norm")
GUARDS = [
    {},
    {"no_repeat_ngram_size": 2, "ngram_window": 8, "ngram_whitelist": (5, 7)},
    {"suppress_tokens": (3, 4), "min_new_tokens": 3},
]


def model(dtype=torch.float32):
    return DeepseekOCRForCausalLM.from_pretrained(NANO, dtype)


@pytest.fixture(scope="module")
def prompt():
    generator = torch.Generator().manual_seed(0)
    attended = torch.ones(2, 20, dtype=torch.long)
    attended[0, :5] = 0
    ids = torch.randint(0, 100, (2, 20), generator=generator)
    return {"input_ids": ids, "attention_mask": attended, "eos_token_id": None, "return_logprobs": True}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: "-".join(guard) or "none")
def test_a_padded_batch_gives_equal_tokens_and_probabilities(prompt, guard):
    plain = model()
    expected, scores = plain.generate(**prompt, max_new_tokens=3, **guard)
    plain.use_plan({slot: candidates(slot)["triton"] for slot in PLAN})
    ours, our_scores = plain.generate(**prompt, max_new_tokens=3, **guard)
    assert torch.equal(ours, expected)
    torch.testing.assert_close(our_scores, scores, rtol=1e-4, atol=1e-4)


def test_sixteen_tokens_of_nano(prompt):
    """Also: the launches of a step, for a model of four layers: 5 + 3 * 6, and seven around them."""
    one = {**prompt, "input_ids": prompt["input_ids"][1:], "attention_mask": prompt["attention_mask"][1:]}
    plain = model()
    expected, _ = plain.generate(**one, max_new_tokens=16, no_repeat_ngram_size=4)
    plain.use_plan({slot: candidates(slot)["triton"] for slot in PLAN})
    started: list[Launch] = []
    with listening(started.append):
        ours, _ = plain.generate(**one, max_new_tokens=16, no_repeat_ngram_size=4)
    assert torch.equal(ours, expected)
    layers = [launch.name for launch in started if launch.name == "rotate_write_attend_kernel"]
    assert len(layers) == 15 * 4


def test_the_end_token_ends_a_sample(prompt):
    plain = model()
    free = plain.generate(**prompt, max_new_tokens=4)[0]
    ending = {**prompt, "eos_token_id": int(free[0, 21]), "pad_token_id": 1}
    expected = plain.generate(**ending, max_new_tokens=4)[0]
    plain.use_plan({slot: candidates(slot)["triton"] for slot in PLAN})
    assert torch.equal(plain.generate(**ending, max_new_tokens=4)[0], expected)


@pytest.mark.parametrize(("dtype", "budget"), [(torch.float32, 3e-6), (torch.float16, 3e-3)])
@pytest.mark.parametrize("index", [0, 1], ids=["dense", "experts"])
def test_a_layer_against_fp64(dtype, budget, index):
    ours, wide = model(dtype), model(dtype).double()
    c, generator = ours.config.decoder, torch.Generator().manual_seed(1)
    x = torch.randn(2, c.width, generator=generator).to(dtype)
    cache = torch.randn(2, 2, c.heads, 90, c.head_dim, generator=generator).to(dtype)
    cos, sin = (torch.rand(2, c.head_dim, generator=generator).to(dtype) for _ in "cs")
    mask = torch.rand(2, 71, generator=generator) < 0.8
    mask[:, 70] = True
    place, wide_cache = torch.tensor([70]), cache.double()
    expected = decode_layer(
        x.double(), LayerWeights.of(wide.model.layers[index], c.eps), wide_cache, place, cos.double(),
        sin.double(), 71, mask,
    )  # fmt: skip
    triton = candidates("decode_layer")["triton"]
    got = triton(x, LayerWeights.of(ours.model.layers[index], c.eps), cache, place, cos, sin, 71, mask)
    assert relative_error(got, expected) <= budget
    assert relative_error(cache, wide_cache) <= budget


def test_a_ring_is_written_in_the_middle():
    """The place of a new key may lie before others, as in the ring of a sliding window."""
    ours = model()
    c, generator = ours.config.decoder, torch.Generator().manual_seed(2)
    layer = LayerWeights.of(ours.model.layers[1], c.eps)
    x = torch.randn(1, c.width, generator=generator)
    cache = torch.randn(2, 1, c.heads, 40, c.head_dim, generator=generator)
    cos, sin = (torch.rand(1, c.head_dim, generator=generator) for _ in "cs")
    other, place = cache.clone(), torch.tensor([17])
    expected = decode_layer(x, layer, other, place, cos, sin, 40)
    got = candidates("decode_layer")["triton"](x, layer, cache, place, cos, sin, 40)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cache, other)


@pytest.mark.fuzz
@settings(max_examples=max(6, settings().max_examples // 5))
@given(
    st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 40), st.integers(0, 5), st.integers(2, 12),
    st.booleans(), st.booleans(), st.booleans(),
)  # fmt: skip
def test_choice_follows_the_reference(seed, b, filled, size, vocabulary, free, forbidden, ends):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocabulary, (b, filled + 3), generator=generator)
    logits = torch.randn(b, vocabulary, generator=generator)
    some = torch.rand(2, vocabulary, generator=generator) < 0.3
    some[1, 0] = False
    rules = Rules(size, some[0] if free else None, some[1] if forbidden else None, None, 1)
    if ends:
        rules = Rules(size, rules.free, rules.forbidden, torch.tensor([1, 2]), 1)
    first = seed % filled
    found = []
    for function in (choose, kernels.choose):
        ids, best = tokens.clone(), torch.zeros(b, filled + 3)
        logprobs, finished = torch.zeros(b, filled + 3), torch.rand(b, 1, generator=generator) < 0
        finished[0] = seed % 2 == 0
        function(logits, ids, filled, first, best, logprobs, finished, rules)
        found.append((ids, best, logprobs, finished))
    everything = bool((found[0][1][:, filled] == -math.inf).any())  # nothing may be chosen: any token will do
    for ours, expected, exact in zip(found[1], found[0], (True, False, False, True), strict=True):
        if not everything:
            torch.testing.assert_close(ours, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_seen(bad):
    logits = torch.randn(1, 30)
    logits[0, 7] = bad
    ids, best, logprobs = torch.zeros(1, 5).long(), torch.zeros(1, 5), torch.zeros(1, 5)
    kernels.choose(logits, ids, 2, 0, best, logprobs, torch.zeros(1, 1).bool(), Rules())
    # A single -inf is what a mask leaves; the loop looks at the chosen logit only.
    assert bool(best[0, 2].isfinite()) == (bad == -math.inf)
