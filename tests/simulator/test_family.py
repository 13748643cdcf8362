"""DeepSeek-OCR-2 and Unlimited-OCR on the simulated device, against fp32 on the CPU."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.operators.substitutes.registry import candidates
from model import DeepseekOCRForCausalLM
from tests.helpers.family import NAMES, batch, tiny
from tests.helpers.simulated import moved

NEW = 16
SECOND, UNLIMITED = NAMES[1:]
#: Norm of the difference of all logits, relative to their norm. Not the largest difference: at a position where
#: two experts nearly tie, rounding may choose the other one.
LIMITS = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.06}


def pair(name: str, dtype: torch.dtype, tmp_path):
    config = tiny(name, 5 if name == UNLIMITED else None)
    model = DeepseekOCRForCausalLM.random(config, seed=3)
    model.save_pretrained(tmp_path)
    return model, DeepseekOCRForCausalLM.from_pretrained(tmp_path, dtype, "npu:0")


def on_device(given: dict) -> dict:
    return {name: moved(value) if torch.is_tensor(value) else value for name, value in given.items()}


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_logits_in_every_dtype(name, dtype, tmp_path):
    model, there = pair(name, dtype, tmp_path)
    given = batch(model.config, [[(2, 1)], [(1, 1)]])
    with torch.no_grad():
        expected = model(**given).logits
        found = there(**on_device(given)).logits.float().cpu()
    attended = given["attention_mask"].bool()
    away = (found - expected)[attended].norm() / expected[attended].norm()
    assert away <= LIMITS[dtype]


@pytest.mark.parametrize("profile", ["all", "as-published", "as-published-2.6.0"])
@pytest.mark.parametrize("name", [SECOND, UNLIMITED])
def test_the_same_tokens_and_no_more_waits(name, profile, tmp_path):
    model, there = pair(name, torch.float32, tmp_path)
    given = batch(model.config, [[(1, 1), (1, 1)]])
    n = given["input_ids"].shape[1]
    how = {"max_new_tokens": NEW, "eos_token_id": None, "no_repeat_ngram_size": 3, "ngram_window": 8}
    with simulator.using(profile), simulator.record() as r:
        found = there.generate(**on_device(given), **how)[:, n:]
    assert found.cpu().equal(model.generate(**given, **how)[:, n:])
    assert not r.by_operator("refused")


def test_as_believed_runs_with_substitutes(tmp_path):
    """Without Conv2D and masked_scatter, which that profile lacks."""
    model, there = pair(SECOND, torch.float32, tmp_path)
    given = batch(model.config, [[(2, 1)]])
    there.use_plan(
        {"conv2d": candidates("conv2d")["im2row"], "place_images": candidates("place_images")["cumsum_where"]}
    )
    with simulator.using("as-believed"), torch.no_grad():
        found = there(**on_device(given)).logits.cpu()
    with torch.no_grad():
        torch.testing.assert_close(found, model(**given).logits, atol=5e-4, rtol=0)
