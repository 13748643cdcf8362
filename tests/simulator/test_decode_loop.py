"""The work of one decoded token by the counters: no bytes to the device, one wait in sixteen tokens."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.operators.plan import Plan
from model import DeepseekOCRForCausalLM
from model.fast import references
from tests.helpers.golden import CHECKPOINT, inputs, tensors
from tests.helpers.paths import NANO, ROOT

STORED = ROOT / "reports" / "npu-sim-as-published-nano" / "plan.json"


def spent(model, new: int, **how) -> dict:
    """Counts of a generation that makes `new` tokens of text."""
    ids = inputs("text")["input_ids"] % model.config.decoder.vocab
    with simulator.record() as seen:
        model.generate(ids, max_new_tokens=new, eos_token_id=None, **how)
    return seen.summary()


def per_token(model, **how) -> dict:
    """The difference of 33 and 17 tokens, which cancels prompt and set-up."""
    few, many = spent(model, 17, **how), spent(model, 33, **how)
    return {name: (many[name] - few[name]) / 16 for name in few}


def test_a_token_costs_no_copy_up_and_a_sixteenth_of_a_wait():
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, device="npu:0")
    for how in ({}, {"no_repeat_ngram_size": 3, "ngram_window": 20}, {"suppress_tokens": [5]}):
        cost = per_token(model, **how)
        assert cost["h2d_bytes"] == 0 and cost["syncs"] <= 1 / 16 and cost["fallbacks"] == 0, (how, cost)
    plain = per_token(model)
    model.use_plan(references())
    original = per_token(model, look_every=1)
    assert original["syncs"] > 16 * plain["syncs"] and plain["launches"] < original["launches"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_stored_plan_costs_no_more_than_the_defaults(dtype):
    """The choice of `make operators` for nano as published: never more launches and never more waits."""
    model = DeepseekOCRForCausalLM.from_pretrained(NANO, getattr(torch, dtype), "npu:0")
    plain = per_token(model)
    model.use_plan(
        {slot: f for slot, f in Plan.load(STORED).functions(dtype).items() if hasattr(model.slots, slot)}
    )
    planned = per_token(model)
    assert planned["syncs"] <= plain["syncs"] and planned["launches"] <= plain["launches"]


def test_same_tokens_with_the_guard():
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, device="npu:0")
    given = inputs("g640")
    ids = model.generate(**given, max_new_tokens=48, no_repeat_ngram_size=3)
    assert ids[:, given["input_ids"].shape[1] :].tolist() == tensors("g640")["gen48_ngram3"].tolist()
