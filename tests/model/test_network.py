"""The network compared with outputs of the original. Tolerances: goldens/README.md (4-5 times fp32 noise)."""

from __future__ import annotations

import pytest
import torch

from model.vision import fuse
from tests.helpers.golden import CASES, INDEX, NOTHING, encoding_once, inputs, pages, tensors

VISION, LOGITS = 2e-4, 5e-4


@pytest.fixture(scope="module", autouse=True)
def _pages_are_encoded_once(golden_model):
    with encoding_once(golden_model):
        yield


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def views():
    for case in CASES:
        for i, sample in enumerate(INDEX[case]["samples"]):
            if sample["base"]:
                yield case, i, "global"
            if sample["crop"]:
                yield case, i, "local"


@pytest.mark.parametrize(("case", "i", "which"), list(views()))
def test_vision_towers(golden_model, case, i, which):
    stored, m = tensors(case), golden_model.model
    pixels = pages(case)[i][0 if which == "local" else 1]
    with torch.no_grad():
        sam = m.sam_model(pixels)
        clip = m.vision_model(sam)
        proj = m.projector(fuse(clip, sam))
    for name, ours, step in (("sam", sam, 2), ("clip", clip, 4), ("proj", proj, 4)):
        key = f"s{i}.{which}.{name}"
        if key in stored:
            assert apart(ours, stored[key]) < VISION, key
        else:
            sub = ours[:, :, ::step, ::step] if name == "sam" else ours[:, ::step]
            assert apart(sub, stored[f"{key}.sub4"]) < VISION, key
            norm = ours.norm(dim=1 if name == "sam" else 2)
            assert apart(norm.view_as(stored[f"{key}.norm"]), stored[f"{key}.norm"]) < 1e-3, key


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=pytest.mark.quick) if name == "g640" else name for name in CASES]
)
def test_embeddings_and_logits(golden_model, case):
    stored, given = tensors(case), inputs(case)
    attended = given["attention_mask"].bool()
    with torch.no_grad():
        logits = golden_model(**given).logits
        given.pop("attention_mask")
        embeds = golden_model.embed(**given)
    if "inputs_embeds" in stored:
        assert apart(embeds[attended], stored["inputs_embeds"][attended]) < VISION
        text = attended & ~given["images_seq_mask"]
        assert torch.equal(embeds[text], stored["inputs_embeds"][text])
    if "logits" in stored:
        assert apart(logits[attended], stored["logits"][attended]) < LOGITS
    else:
        last = attended[:, -16:]
        assert apart(logits[:, -16:][last], stored["logits_last16"][last]) < LOGITS
        every = attended[:, ::16]
        assert apart(logits[:, ::16][every], stored["logits_every16"][every]) < LOGITS
        assert torch.equal(logits.argmax(-1)[attended], stored["logits_argmax"][attended])
        # 512 logits, each within LOGITS: their norm within sqrt(512) of it
        assert apart(logits.norm(dim=-1)[attended], stored["logits_rownorm"][attended]) < LOGITS * 512**0.5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("gen24", {"max_new_tokens": 24}),
        ("gen24_noeos", {"max_new_tokens": 24, "min_new_tokens": 24}),
        ("gen48_ngram3", {"max_new_tokens": 48, "no_repeat_ngram_size": 3}),
    ],
)
def test_greedy_tokens(golden_model, case, name, how):
    given = inputs(case)
    ids = golden_model.generate(**given, **how)
    n = given["input_ids"].shape[1]
    assert torch.equal(ids[:, :n], given["input_ids"])
    assert ids[:, n:].tolist() == tensors(case)[name].tolist()


def test_the_last_logits_alone_are_the_same(golden_model):
    given = inputs("g640")
    with torch.no_grad():
        every = golden_model(**given).logits
        last = golden_model(**given, logits_to_keep=3).logits
    assert last.shape[1] == 3
    assert apart(last, every[:, -3:]) < 1e-5  # another matrix shape may sum in another order


def test_left_padding_changes_nothing(golden_model):
    """A sample alone, and the same sample padded in a batch with a longer one."""
    given = inputs("g640")
    text = inputs("text")
    pad = given["input_ids"].shape[1] - text["input_ids"].shape[1]
    both = {
        "input_ids": torch.cat(
            (torch.nn.functional.pad(text["input_ids"], (pad, 0), value=2), given["input_ids"])
        ),
        "attention_mask": torch.cat(
            (torch.nn.functional.pad(text["attention_mask"], (pad, 0)), given["attention_mask"])
        ),
        "images_seq_mask": torch.cat(
            (torch.nn.functional.pad(text["images_seq_mask"], (pad, 0)), given["images_seq_mask"])
        ),
        "images_spatial_crop": torch.cat((text["images_spatial_crop"], given["images_spatial_crop"])),
        "images": text["images"] + given["images"],  # text first: the original would ignore the picture here
    }
    with torch.no_grad():
        alone = [golden_model(**text).logits[0], golden_model(**given).logits[0]]
        together = golden_model(**both).logits
    assert apart(together[0, pad:], alone[0]) < LOGITS
    assert apart(together[1], alone[1]) < LOGITS
    tokens = golden_model.generate(**both, max_new_tokens=24)[:, both["input_ids"].shape[1] :]
    for row, case in enumerate(("text", "g640")):
        expected = tensors(case)["gen24"][0].tolist()
        assert tokens[row].tolist()[: len(expected)] == expected[: tokens.shape[1]]


def test_text_needs_no_pages(golden_model):
    given = inputs("text")
    with torch.no_grad():
        logits = golden_model(given["input_ids"]).logits
    assert apart(logits, tensors("text")["logits"]) < LOGITS


def test_tiles_of_the_wrong_number_are_named(golden_model):
    given = inputs("crop2x1")
    given["images"] = [(given["images"][0][0][:1], given["images"][0][1])]
    with pytest.raises(ValueError, match="1 tiles for a grid of 2x1"):
        golden_model(**given)


def test_placeholders_of_the_wrong_number_are_named(golden_model):
    given = inputs("g640")
    given["images_seq_mask"][0, 5] = False
    with pytest.raises(ValueError, match="sample 0: 110 image placeholders .* 111 vectors"):
        golden_model(**given)


def test_views_that_are_not_square_are_named(golden_model):
    given = inputs("g640")
    given["images"] = [(NOTHING, torch.zeros(1, 3, 640, 576))]
    with pytest.raises(ValueError, match="640x576"):
        golden_model(**given)
