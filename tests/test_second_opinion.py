"""A second opinion: transformers holds the same network under other names (`unlimited_ocr`, in its 5.x
releases).

It shares no line with the original or with ours, reads the same checkpoint through its own conversion of
names, and must give our logits and our tokens. Its one difference, a sliding window over decoded tokens, is
set so wide that it never acts.
"""

from __future__ import annotations

import pytest
import torch

from model import loading
from tests.golden import CASES, CHECKPOINT, INDEX, inputs, tensors

peer = pytest.importorskip(
    "transformers.models.unlimited_ocr",
    reason="this transformers has no unlimited_ocr (5.x has it): no second opinion to ask",
)

LOGITS = 5e-4  # goldens/README.md; the two agree to 3e-5 there
WIDE = 1_000_000  # tokens; longer than any sequence here
IGNORED = {"model.vision_model.embeddings.patch_embedding.weight"}  # never used; the peer does not have it


def peer_config(config):
    """Our config in the peer's terms, every size stated."""
    sam, clip, c = config.sam, config.clip, config.decoder
    return peer.UnlimitedOcrConfig(
        image_token_id=config.image_token_id,
        vision_config={
            "sam_config": {
                "hidden_size": sam.width,
                "output_channels": sam.neck,
                "num_hidden_layers": sam.layers,
                "num_attention_heads": sam.heads,
                "image_size": sam.grid * sam.patch,
                "patch_size": sam.patch,
                "layer_norm_eps": sam.eps,
                "window_size": sam.window,
                "global_attn_indexes": list(sam.global_blocks),
                "mlp_dim": sam.hidden,
                "downsample_channels": list(sam.downsample_channels),
            },
            "encoder_config": {
                "hidden_size": clip.width,
                "intermediate_size": clip.hidden,
                "num_hidden_layers": clip.layers,
                "num_attention_heads": clip.heads,
                "image_size": clip.grid * clip.patch,
                "patch_size": clip.patch,
                "layer_norm_eps": clip.eps,
            },
        },
        text_config={
            "vocab_size": c.vocab,
            "hidden_size": c.width,
            "intermediate_size": c.dense_hidden,
            "num_hidden_layers": c.layers,
            "num_attention_heads": c.heads,
            "num_key_value_heads": c.heads,
            "max_position_embeddings": c.max_positions,
            "rms_norm_eps": c.eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
            "n_routed_experts": c.experts,
            "n_shared_experts": c.shared_experts,
            "num_experts_per_tok": c.experts_per_token,
            "moe_intermediate_size": c.expert_hidden,
            "routed_scaling_factor": c.expert_scale,
            "first_k_dense_replace": c.dense_layers,
            "sliding_window": WIDE,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": 2,
        },
    )


@pytest.fixture(scope="module")
def second():
    """The peer with the golden weights. Every tensor must find its place, and every place its tensor."""
    config = loading.read_config(CHECKPOINT)
    model, report = peer.UnlimitedOcrForConditionalGeneration.from_pretrained(
        CHECKPOINT,
        config=peer_config(config),
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert set(report["unexpected_keys"]) <= IGNORED
    return model.eval()


def peer_inputs(case: str) -> dict:
    """The golden inputs in the peer's terms. It takes the pages of the samples that have one, in order."""
    given, samples = inputs(case), INDEX[case]["samples"]
    asked = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}
    seen = [(page, sample) for page, sample in zip(given["images"], samples, strict=True) if sample["base"]]
    if seen:
        asked["pixel_values"] = torch.cat([view for (_, view), _ in seen])
    if any(sample["crop"] for _, sample in seen):
        asked["pixel_values_local"] = torch.cat([crops for (crops, _), sample in seen if sample["crop"]])
        asked["num_local_patches"] = [len(crops) if sample["crop"] else 0 for (crops, _), sample in seen]
        asked["patches_grid"] = [sample["crop"] or [1, 1] for _, sample in seen]
    return asked


@pytest.mark.parametrize("case", CASES)
def test_logits(golden_model, second, case):
    given = inputs(case)
    attended = given["attention_mask"].bool()
    positions = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        ours = golden_model(**given).logits[attended]
        theirs = second(**peer_inputs(case), position_ids=positions).logits[attended]
    assert (ours - theirs).abs().max().item() < LOGITS


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens(golden_model, second, case):
    given = inputs(case)
    n = given["input_ids"].shape[1]
    ours = golden_model.generate(**given, max_new_tokens=24, min_new_tokens=24)[:, n:]
    asked = peer_inputs(case)
    theirs = second.generate(**asked, max_new_tokens=24, min_new_tokens=24, do_sample=False)[:, n:]
    assert ours.tolist() == theirs.tolist() == tensors(case)["gen24_noeos"].tolist()


def test_the_second_opinion_is_not_an_echo(golden_model, second):
    """With one of its weights changed the peer must disagree, or the comparisons above prove nothing."""
    given, weight = inputs("g640"), second.model.language_model.layers[2].mlp.experts.down_proj
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(0.5)
            theirs = second(**peer_inputs("g640")).logits
            ours = golden_model(**given).logits
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert (ours - theirs).abs().max().item() > 100 * LOGITS
