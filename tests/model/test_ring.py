"""The cache of constant size of Unlimited-OCR: what is visible, and that neither memory nor time grow."""

from __future__ import annotations

import time

import pytest
import torch

from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.generation import Prompt, whole_pass
from model.ring import RingCache, make_cache, window_mask
from tests.helpers.family import alone, batch, tiny

NEW = 24
META = torch.device("meta")


def model_with(window: int, seed: int = 3) -> DeepseekOCRForCausalLM:
    return DeepseekOCRForCausalLM.random(tiny("unlimited-ocr", window), seed=seed)


def by_mask(model, given: dict, steps: int) -> list[int]:
    """Greedy tokens of one sample, each from a pass over the whole sequence with the window as a mask."""
    n, ids = given["input_ids"].shape[1], given["input_ids"]
    for _ in range(steps):
        mask = torch.nn.functional.pad(given["images_seq_mask"], (0, ids.shape[1] - n))
        prompt = Prompt(ids, given["images"], mask, given["images_spatial_crop"])
        with torch.no_grad():
            ids = torch.cat((ids, whole_pass(model, prompt, n)[:, -1].argmax(-1, keepdim=True)), 1)
    return ids[0, n:].tolist()


@pytest.mark.parametrize("window", [1, 2, 5, NEW - 1, NEW, 99])
def test_a_ring_computes_what_a_mask_over_everything_computes(window):
    model = model_with(window)
    given = batch(model.config, [[(1, 1)]])
    n = given["input_ids"].shape[1]
    new = model.generate(**given, max_new_tokens=NEW, eos_token_id=None)[0, n:].tolist()
    assert new == by_mask(model, given, NEW)


@pytest.mark.parametrize("window", [1, 4])
def test_a_batch_with_padding_answers_as_each_sample_alone(window):
    model = model_with(window)
    given = batch(model.config, [[(2, 1)], [], [(1, 1), (1, 1)]])
    n = given["input_ids"].shape[1]
    together = model.generate(**given, max_new_tokens=NEW, eos_token_id=None, no_repeat_ngram_size=3)[:, n:]
    for i, row in enumerate(together.tolist()):
        one = alone(given, i)
        new = model.generate(**one, max_new_tokens=NEW, eos_token_id=None, no_repeat_ngram_size=3)
        assert row == new[0, one["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("samples", [[[(1, 1)]], [[(1, 1)], []]], ids=["one", "padded"])
def test_modules_step_and_recording_agree(samples):
    """The step bypasses the modules; a hook makes `generate` use them. A recording writes to fixed memory."""
    model = model_with(5)
    given = batch(model.config, samples)
    how = {**given, "max_new_tokens": NEW, "eos_token_id": None}
    step = model.generate(**how)
    recorded = model.generate(**how, record=lambda run: run)
    handle = model.model.layers[0].register_forward_hook(lambda *_: None)
    modules = model.generate(**how)
    handle.remove()
    assert step.equal(modules) and step.equal(recorded)


def test_the_mask_shows_the_prompt_and_the_window():
    attended = torch.ones(1, 7, dtype=torch.bool)
    attended[0, 0] = False
    seen = window_mask(attended, prompt=3, window=2)[0, 0].int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 1, 1, 0],
        [0, 1, 1, 0, 0, 1, 1],
    ]


def test_the_cache_at_the_official_size_does_not_depend_on_the_answer():
    """A page of 2 x 3 tiles (903 placeholders): prompt and 128 places, whatever is generated."""
    c = DeepseekOCRConfig.official("unlimited-ocr").decoder
    sizes = {make_cache(c, 1, 913, new, torch.bfloat16, META).data.nbytes for new in (128, 2000, 30_000)}
    assert sizes == {(913 + 128) * c.layers * 2 * c.heads * c.head_dim * 2}
    assert make_cache(c, 1, 913, 5, torch.bfloat16, META).length == 913 + 5
    plain = DeepseekOCRConfig().decoder
    assert make_cache(plain, 1, 913, 2000, torch.bfloat16, META).length == 913 + 2000


def test_a_ring_refuses_what_it_cannot_hold():
    c = tiny("unlimited-ocr", 4).decoder
    cache = RingCache(c, 1, 6, 10, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="prompt of 6"):
        cache.slot(7)
    cache.advance(6)
    with pytest.raises(ValueError, match="one at a time"):
        cache.slot(2)
    slots = []
    for _ in range(9):
        slots.append((cache.slot(), cache.visible()))
        cache.advance(1)
    assert slots[:6] == [(6, 7), (7, 8), (8, 9), (9, 10), (6, 10), (7, 10)]
    with pytest.raises(ValueError, match="no window"):
        RingCache(DeepseekOCRConfig().decoder, 1, 6, 10, torch.float32, META)


def test_time_per_token_does_not_grow_with_the_answer():
    """2,000 forced tokens with a guard over the window: first and last quarter within 10 %.

    The fastest tenth of each quarter counts, because other processes share the machine. Without a window this
    model is a fifth slower at the end.
    """
    model = DeepseekOCRForCausalLM.random(tiny("unlimited-ocr", 32))
    given = batch(model.config, [[(1, 1)]])
    stamps: list[float] = []
    model.generate(
        **given, max_new_tokens=2000, eos_token_id=None, no_repeat_ngram_size=35, ngram_window=128,
        on_tokens=lambda tokens: stamps.append(time.perf_counter()),
    )  # fmt: skip
    took = torch.tensor(stamps, dtype=torch.float64).diff()
    first, last = took[:500].quantile(0.1).item(), took[-500:].quantile(0.1).item()
    assert last < 1.1 * first
