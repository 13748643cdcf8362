"""The decode loop on the device: the same tokens for any interval of host checks, and the guard's rules."""

from __future__ import annotations

import random

import pytest
import torch

from deskocr_kit.device import graphs
from model.decoder import KVCache
from model.fast import norm, references, step
from model.fast.moe import gathered
from model.generation import decode, prefill
from model.network import padding
from model.ngram import DeviceGuard, banned_tokens
from model.slots import rms_norm
from tests.helpers.golden import inputs, tensors
from tests.helpers.tape import Device

VOCAB = 6


def plain(model, given: dict, new: int, size: int = 0, window=None, white=()) -> list[list[int]]:
    """The simple loop: every step on the host, one sample, no end token."""
    ids = given["input_ids"]
    embeds = model.embed(ids, given["images"], given["images_seq_mask"], given["images_spatial_crop"])
    _, positions = padding(None, ids.shape, model.device)
    cache = KVCache(model.config.decoder, 1, ids.shape[1] + new, embeds.dtype, model.device)
    logits, said = prefill(model, embeds, positions, None, cache), ids[0].tolist()
    for done in range(new):
        logits[0, sorted(banned_tokens(said, size, window, white))] = -torch.inf
        said.append(int(logits.argmax()))
        if done + 1 < new:
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
    """The samples end at different steps; tokens decoded after the last end are removed."""
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
    """Every step of random sequences, two samples at once, compared with the guard on the host."""
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


# ---------------------------------------------------------------------- the step past the modules
def off_the_cpu(monkeypatch, model):
    """The code for other devices, on this one: rotation as a product, chosen and shared experts apart."""
    monkeypatch.setattr(model.slots, "moe", gathered)
    monkeypatch.setattr(step.Step, "launches_cost", lambda self: True)


@pytest.mark.parametrize("case", ["crop2x1", "batch2"])
def test_the_step_gives_the_tokens_of_the_original(golden_model, case, monkeypatch):
    off_the_cpu(monkeypatch, golden_model)
    given = inputs(case)
    ids = golden_model.generate(**given, max_new_tokens=24)
    assert ids[:, given["input_ids"].shape[1] :].tolist() == tensors(case)["gen24"].tolist()


@pytest.mark.parametrize("device", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_the_step_equals_the_modules(golden_model, device, padded, monkeypatch):
    """Logits and cache after one step of one sample, and of two samples, one of them padded."""
    if device:
        off_the_cpu(monkeypatch, golden_model)
    model, b = golden_model, 1 + padded
    torch.manual_seed(3)
    ids = torch.randint(3, 500, (b, 6))
    attended = torch.ones(b, 6, dtype=torch.long)
    attended[1:, :2] = 0
    visible = (
        torch.cat((attended, torch.ones(b, 1, dtype=torch.long)), 1).bool()[:, None, None] if padded else None
    )
    with torch.no_grad():
        found = []
        for through_modules in (True, False):
            cache = KVCache(model.config.decoder, b, 8, torch.float32, model.device)
            mask, positions = padding(attended, ids.shape, model.device)
            prefill(model, model.embed(ids), positions, mask, cache)
            at = positions[:, -1:] + 1
            if through_modules:
                logits = decode(model, ids[:, :1], at, visible, cache)
            else:
                assert step.possible(model)
                logits = step.Step(model, cache, b)(ids[:, :1], at if padded else None, visible)
            found.append((logits, cache.data.clone(), cache.filled))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_listeners_and_exchanged_modules_are_not_gone_past(golden_model):
    linear = golden_model.model.layers[1].self_attn.o_proj
    assert step.possible(golden_model)
    hook = linear.register_forward_hook(lambda *_: None)
    assert not step.possible(golden_model)
    hook.remove()
    golden_model.model.layers[1].self_attn.o_proj = torch.nn.Sequential(linear)
    assert not step.possible(golden_model)
    golden_model.model.layers[1].self_attn.o_proj = linear
    assert step.possible(golden_model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-3, 1.0, 60000.0])
def test_both_norms_are_the_norm(dtype, size):
    """Up to the fp16 maximum, and where eps matters: one rounding of the dtype; fewer for the doubled one."""
    torch.manual_seed(0)
    x = (torch.rand(3, 320) * 2 - 1).mul(size).to(dtype)
    x[:, 0] = size
    weight = torch.linspace(0.5, 1.5, 320).to(dtype)
    exact = x.double() * torch.rsqrt(x.double().square().mean(-1, keepdim=True) + 1e-6) * weight.double()
    bound = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for y in (
        norm.by_length(x, weight, 1e-6),
        norm.by_layer_norm(weight, 1e-6)(x),
        rms_norm(x, weight, 1e-6),
    ):
        assert y.dtype == dtype
        assert ((y.double() - exact).abs() <= bound * exact.abs() + 1e-7).all()


def test_the_norm_lets_gradients_through():
    x, weight = torch.randn(2, 8, requires_grad=True), torch.ones(8, requires_grad=True)
    norm.by_length(x, weight, 1e-6).sum().backward()
    assert x.grad is not None and weight.grad is not None


# ---------------------------------------------------------------------- recorded and replayed
@pytest.mark.parametrize("case", ["crop2x1", "batch2"])
def test_a_recorded_step_gives_the_same_tokens(golden_model, case, monkeypatch):
    """Recorded at the first token, replayed for all: values from the host stay those of the first token."""
    off_the_cpu(monkeypatch, golden_model)
    monkeypatch.setattr(torch, "cuda", Device)
    record, tapes = graphs("cuda:0"), []
    given = inputs(case)
    ids = golden_model.generate(**given, max_new_tokens=24, record=lambda run: tapes.append(1) or record(run))
    assert ids[:, given["input_ids"].shape[1] :].tolist() == tensors(case)["gen24"].tolist()
    assert len(tapes) == 1


def test_no_recording_bypasses_hooks(golden_model):
    hook = golden_model.model.norm.register_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ValueError, match="a recording would bypass it"):
            golden_model.generate(torch.tensor([[0, 5]]), max_new_tokens=2, record=lambda run: run)
    finally:
        hook.remove()


def test_no_graphs_on_the_cpu():
    with pytest.raises(NotImplementedError, match="cpu has no graphs"):
        graphs("cpu")
