"""The decode loop: guards, stopping, streaming, and the error for a layer that breaks."""

from __future__ import annotations

import copy
import json
import random

import pytest
import torch

from model import DeepseekOCRForCausalLM
from model.decoder import KVCache
from model.ngram import DeviceGuard, NgramGuard, banned_tokens
from model.nonfinite import NonFiniteError
from tests.helpers.golden import CHECKPOINT, GOLDENS, inputs, tensors

VECTORS = json.loads((GOLDENS / "ngram_vectors.json").read_text())["vectors"]


@pytest.mark.parametrize("vector", VECTORS)
def test_ngram_vectors(vector):
    ids, size = vector["ids"], vector["ngram_size"]
    assert (
        sorted(banned_tokens(ids, size, vector["window"], vector["whitelist"])) == vector["banned_windowed"]
    )
    assert sorted(banned_tokens(ids, size)) == vector["banned_hf_whole_sequence"]
    ours = on_device(ids, size, vector["window"], vector["whitelist"])
    assert ours == vector["banned_windowed"]
    assert on_device(ids, size) == vector["banned_hf_whole_sequence"]


def on_device(ids: list[int], size: int, window: int | None = None, whitelist=()) -> list[int]:
    """The bans of the guard in the loop, once from the whole prompt and once token by token."""
    vocab, results = max([*ids, *whitelist], default=0) + 1, []
    for prompt in {len(ids), 1}:
        guard = DeviceGuard(torch.tensor([ids]), prompt, size, window, (w for w in whitelist), vocab)
        for _ in range(len(ids) - prompt):
            guard.append()
        banned = guard.apply(torch.zeros(1, vocab)) == -torch.inf
        results.append(banned[0].nonzero()[:, 0].tolist())
    assert all(each == results[0] for each in results)
    return results[0]


@pytest.mark.parametrize("seed", range(20))
def test_incremental_guard_equals_the_rule_as_written(seed):
    """The rule of the guard, written out directly, at every step of a random sequence."""
    rng = random.Random(seed)
    size, window = rng.randint(2, 5), rng.randint(1, 30)
    white = {rng.randrange(4)}
    guard, s = NgramGuard(size, window, white), []
    for _ in range(120):
        guard.append(token := rng.randrange(4))
        s.append(token)
        banned = set()
        if len(s) >= size:
            prefix = s[len(s) - size + 1 :]
            for i in range(max(0, len(s) - window), len(s) - size + 1):
                if s[i : i + size - 1] == prefix:
                    banned.add(s[i + size - 1])
        assert guard.banned() == banned - white


def test_whitelist_holds_for_the_whole_sequence_too():
    assert banned_tokens([1, 2, 3, 1, 2], 3, None, whitelist=[3]) == set()


@pytest.mark.parametrize(("size", "window"), [(-1, None), (3, 0), (3, -5)])
def test_impossible_guards_are_refused(size, window):
    with pytest.raises(ValueError, match="n-gram"):
        NgramGuard(size, window)


def test_stream_gives_the_tokens_in_order(golden_model):
    given, heard = inputs("batch2"), []
    ids = golden_model.generate(**given, max_new_tokens=24, on_tokens=heard.append)
    assert torch.tensor(heard).T.tolist() == ids[:, given["input_ids"].shape[1] :].tolist()


def test_never_ends_without_an_end_token(golden_model):
    given = inputs("g640")
    ids = golden_model.generate(**given, max_new_tokens=40, eos_token_id=None)
    assert ids.shape[1] == given["input_ids"].shape[1] + 40


def test_suppressed_tokens_do_not_come(golden_model):
    given = inputs("text")
    n = given["input_ids"].shape[1]
    first = golden_model.generate(**given, max_new_tokens=1)[0, n].item()
    other = golden_model.generate(**given, max_new_tokens=8, suppress_tokens=[first])[0, n:].tolist()
    assert first not in other


def test_cached_steps_equal_one_pass(golden_model):
    """Teacher-forced: the logits of each cached step equal those of the full pass."""
    given = inputs("g640")
    n = given["input_ids"].shape[1]
    ids = torch.cat((given["input_ids"], tensors("g640")["gen24_noeos"]), dim=1)
    embeds = golden_model.embed(given["input_ids"], given["images"], given["images_seq_mask"])
    rest = golden_model.model.embed_tokens(ids[:, n:])
    at = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        whole = golden_model.decode_embeds(torch.cat((embeds, rest), 1), at, None, True)
        cache = KVCache(golden_model.config.decoder, 1, ids.shape[1], torch.float32, torch.device("cpu"))
        steps = [golden_model.decode_embeds(embeds, at[:, :n], None, True, cache)]
        for i in range(n, ids.shape[1]):
            steps.append(
                golden_model.decode_embeds(rest[:, i - n : i - n + 1], at[:, i : i + 1], None, False, cache)
            )
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=5e-4, rtol=0)


def test_cache_says_when_it_is_full(golden_model):
    cache = KVCache(golden_model.config.decoder, 1, 2, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match="3 positions do not fit the 2"):
        cache.update(0, torch.zeros(1, 3, 3, 32), torch.zeros(1, 3, 3, 32))


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ("model.layers.1.mlp.experts.down_proj", "weights of model.layers.1.mlp.experts.down_proj"),
        ("model.sam_model.net_3.weight", "weights of model.sam_model.net_3.weight"),
    ],
)
def test_broken_weights_are_named(golden_model, where, word):
    model = copy.deepcopy(golden_model)
    with torch.no_grad():
        model.get_parameter(where).fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=word):
        model.generate(**inputs("g640"), max_new_tokens=2)


def test_overflow_is_named_by_its_layer():
    """fp16: the output of an MLP exceeds the range. The message names the first such layer, not the last."""
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float16)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(30000)
    with pytest.raises(NonFiniteError, match=r"first produced by model\.layers\.0\.mlp\.down_proj\."):
        model.generate(**inputs("text"), max_new_tokens=2)


def test_overflow_in_a_later_step_is_named(golden_model):
    """Finite in the prompt, NaN from the third step on: the second pass must still name the layer."""
    model = copy.deepcopy(golden_model)
    given = inputs("text")
    third = model.generate(**given, max_new_tokens=3, eos_token_id=None)[0, -1]
    assert third not in given["input_ids"]
    model.model.embed_tokens.register_forward_hook(
        lambda module, args, out: out.masked_fill((args[0] == third)[..., None], float("inf"))
    )
    with pytest.raises(NonFiniteError, match=r"first produced by model\.embed_tokens\."):
        model.generate(**given, max_new_tokens=8, eos_token_id=None)


def test_nothing_to_do_is_said(golden_model):
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        golden_model.generate(torch.tensor([[0]]), max_new_tokens=0)
    with pytest.raises(ValueError, match="prompt of 0 tokens"):
        golden_model.generate(torch.zeros(1, 0, dtype=torch.long))
