"""The decode loop on the device: the same tokens however rarely the host looks, and the guard's rules."""

from __future__ import annotations

import random

import pytest
import torch

from model.decoder import KVCache
from model.fast import references
from model.generation import decode, prefill
from model.modeling_deepseekocr import padding
from model.ngram import DeviceGuard, banned_tokens
from tests.golden import inputs, tensors

VOCAB = 6


def plain(model, given: dict, new: int, size: int = 0, window=None, white=()) -> list[list[int]]:
    """The simple loop: everything on the host, every step. One sample, no end token."""
    ids = given["input_ids"]
    embeds = model.embed(ids, given["images"], given["images_seq_mask"], given["images_spatial_crop"])
    _, positions = padding(None, ids.shape, model.device)
    cache = KVCache(model.config.decoder, 1, ids.shape[1] + new, embeds.dtype, model.device)
    logits, said = prefill(model, embeds, positions, None, cache), ids[0].tolist()
    for step in range(new):
        logits[0, sorted(banned_tokens(said, size, window, white))] = -torch.inf
        said.append(int(logits.argmax()))
        if step + 1 < new:
            at = torch.tensor([[len(said) - 1]])
            logits = decode(model, torch.tensor([[said[-1]]]), at, None, cache)
    return said[ids.shape[1] :]


@pytest.mark.parametrize(
    "how", [{}, {"no_repeat_ngram_size": 2, "ngram_window": 9, "ngram_whitelist": (3, 500)}]
)
def test_the_loop_equals_the_plain_one(golden_model, how):
    given = inputs("text")
    with torch.no_grad():
        expected = plain(golden_model, given, 20, *how.values())
    n = given["input_ids"].shape[1]
    for every in (1, 7, 16, 50):
        ids = golden_model.generate(**given, max_new_tokens=20, eos_token_id=None, look_every=every, **how)
        assert ids[0, n:].tolist() == expected


@pytest.mark.parametrize("every", [1, 5, 16])
def test_a_batch_ends_early_however_rarely_the_host_looks(golden_model, every):
    """Its samples end at different steps; what was decoded past the last end is cut."""
    given, heard = inputs("batch2"), []
    ids = golden_model.generate(**given, max_new_tokens=24, look_every=every, on_tokens=heard.append)
    new = ids[:, given["input_ids"].shape[1] :]
    assert new.tolist() == tensors("batch2")["gen24"].tolist()
    assert torch.tensor(heard).T.tolist() == new.tolist()


def test_looking_never_is_refused(golden_model):
    with pytest.raises(ValueError, match="look_every"):
        golden_model.generate(torch.tensor([[0]]), look_every=0)


@pytest.mark.parametrize("seed", range(24))
def test_the_guard_on_the_device_follows_the_rule(seed):
    """Every step of random sequences, two samples at once, against the guard on the host."""
    rng = random.Random(seed)
    size, window, white = rng.randint(0, 5), rng.choice([None, 1, 4, 9, 40]), (rng.randrange(VOCAB),)
    prompt, length = rng.randint(1, 12), 50
    ids = torch.full((2, length), -1)
    ids[:, :prompt] = torch.tensor([[rng.randrange(3) for _ in range(prompt)] for _ in range(2)])
    guard = DeviceGuard(ids, prompt, size, window, white, VOCAB)
    for n in range(prompt, length):
        banned = guard.apply(torch.zeros(2, VOCAB)) == -torch.inf
        for row in range(2):
            expected = banned_tokens(ids[row, :n].tolist(), size, window, white)
            assert set(banned[row].nonzero()[:, 0].tolist()) == expected, (seed, n)
        ids[:, n] = torch.tensor([rng.randrange(3) for _ in range(2)])
        guard.append()


def test_defaults_and_references_give_the_same_tokens(golden_model):
    given, before = inputs("crop2x1"), dict(vars(golden_model.slots))
    ours = golden_model.generate(**given, max_new_tokens=12, eos_token_id=None)
    try:
        golden_model.use_plan(references())
        assert golden_model.generate(**given, max_new_tokens=12, eos_token_id=None).equal(ours)
    finally:
        golden_model.use_plan(before)
