"""The baseline of the launch counts computes the same as the original code and as our model."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit.baselines.original import Original, generate, pick
from deskocr_kit.opcount.recorder import Recorder
from deskocr_kit.prediction.original_loop import census_original
from model import DeepseekOCRConfig
from tests.helpers.golden import inputs, tensors


def embedded(model, given: dict) -> torch.Tensor:
    return model.embed(
        given["input_ids"], given["images"], given["images_seq_mask"], given["images_spatial_crop"]
    )


@pytest.mark.parametrize("case", ["crop2x1", "batch2", "text"])
def test_the_same_tokens_as_the_original(golden_model, case):
    given = inputs(case)
    with torch.no_grad():
        ids = generate(golden_model, embedded(golden_model, given), given["input_ids"],
                       given["attention_mask"], 24, {golden_model.config.eos_token_id})  # fmt: skip
    new = ids[:, given["input_ids"].shape[1] :]
    theirs = tensors(case)["gen24"]
    assert new.tolist() == theirs[:, : new.shape[1]].tolist()


def test_the_same_logits_as_ours(golden_model):
    given = inputs("batch2")
    with torch.no_grad():
        path = Original(golden_model, given["attention_mask"])
        theirs = path.forward(embedded(golden_model, given))
        ours = golden_model(**given).logits
    attended = given["attention_mask"].bool()
    torch.testing.assert_close(theirs[attended], ours[attended], atol=2e-4, rtol=0)


def test_the_guard_on_the_host_bans_what_ours_bans(golden_model):
    given = inputs("text")
    with torch.no_grad():
        ids = generate(golden_model, embedded(golden_model, given), given["input_ids"],
                       given["attention_mask"], 20, set(), ngram=2)  # fmt: skip
        ours = golden_model.generate(**given, max_new_tokens=20, eos_token_id=None, no_repeat_ngram_size=2)
    assert ids.equal(ours)


def test_what_is_counted():
    """Launches by place, as counted by hand from the code of the original."""
    c = DeepseekOCRConfig().decoder
    census, mixtures = census_original(), c.layers - c.dense_layers
    found = {}
    for entry in census.select("decode"):
        if entry.call.kind == "launch":
            place = entry.call.site.rpartition(" ")[2]
            found[place] = found.get(place, 0) + entry.count
    assert found["rms_norm"] == 8 * (2 * c.layers + 1)
    assert found["rotary"] == 2 * 5 * c.layers
    experts = mixtures * c.experts_per_token
    assert found["swiglu_mlp"] == 5 * (experts + mixtures + c.dense_layers)
    assert census.syncs("decode") == mixtures + 3  # the experts; the guard, the streamer, the end condition


def test_the_dry_count_is_that_of_a_real_run(golden_model):
    ids = torch.randint(3, 500, (1, 9))
    with torch.no_grad():
        path = Original(golden_model, torch.ones(1, 8, dtype=torch.long))
        path.forward(golden_model.model.embed_tokens(ids[:, :8]))
        path.mask = torch.ones(1, 9, dtype=torch.long)
        x, going, end = golden_model.model.embed_tokens(ids[:, 8:]), ids.new_ones(1), ids[0, :1]
        with Recorder(golden_model) as recorder:
            pick(path.forward(x), ids, going, end, pad=2, ngram=20)
    real = sum(n for call, n in recorder.counts.items() if call.kind == "launch")
    outside = 2 + 2 + 1  # growing the mask, reading the end condition, embedding the token
    assert census_original(golden_model.config, dtype=torch.float32).launches() == real + outside
