"""More planted faults, in weights, settings, code, masks, positions and caches; each is found and named."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.compare.cache import compare_caches
from deskocr_kit.compare.ladder import climb
from deskocr_kit.compare.weights import compare_weights
from model import slots as reference_slots
from tests.helpers.golden import small_page


@pytest.fixture(scope="module")
def given():
    return small_page()


@pytest.fixture
def planted(golden_model):
    return copy.deepcopy(golden_model)


# ---------------------------------------------------------------------- weights at the wrong place
def gate_and_up(model):
    weight = model.model.layers[0].mlp.gate_up_proj.weight.data
    weight.copy_(weight.roll(len(weight) // 2, 0))
    half = len(weight) // 2
    return "model.layers.0.mlp.gate_up_proj", f"0:{half} hold what belongs in {half}:{2 * half}"


def q_and_k_of_one_head(model):
    attention = model.model.layers[1].self_attn
    weight = attention.qkv_proj.weight.data
    width, head = weight.shape[1], weight.shape[1] // attention.heads
    q, k = weight[head : 2 * head].clone(), weight[width + head : width + 2 * head].clone()
    weight[head : 2 * head], weight[width + head : width + 2 * head] = k, q
    where = f"{head}:{2 * head} hold what belongs in {width + head}:{width + 2 * head}"
    return "model.layers.1.self_attn.qkv_proj", where


def two_experts(model):
    weight = model.model.layers[2].mlp.experts.down_proj.data
    weight[[1, 3]] = weight[[3, 1]]
    return "model.layers.2.mlp", "1 hold what belongs in 3, 3 hold what belongs in 1"


def gate_and_up_of_an_expert(model):
    weight = model.model.layers[1].mlp.experts.gate_up_proj.data
    weight.copy_(weight.roll(weight.shape[1] // 2, 1))
    return "model.layers.1.mlp", "places of axis 1 at the wrong place"


def rel_pos_h_and_w(model):
    attention = model.model.sam_model.blocks[0].attn
    h, w = attention.rel_pos_h, attention.rel_pos_w
    h.data, w.data = w.data, h.data
    return "model.sam_model.blocks.0.attn", "rel_pos_h: exchanged with rel_pos_w"


def rel_pos_backwards(model):
    table = model.model.sam_model.blocks[0].attn.rel_pos_h.data
    table.copy_(table.flip(0))
    return "model.sam_model.blocks.0.attn", "rows in reverse order"


def transposed_matrix(model):
    weight = model.model.vision_model.layers[0].self_attn.out_proj.weight.data
    weight.copy_(weight.t().clone())
    return "model.vision_model.layers.0.self_attn.out_proj", "transposed"


WEIGHTS = [
    gate_and_up, q_and_k_of_one_head, two_experts, gate_and_up_of_an_expert, rel_pos_h_and_w,
    rel_pos_backwards, transposed_matrix,
]  # fmt: skip


@pytest.mark.parametrize("plant", WEIGHTS, ids=lambda plant: plant.__name__)
def test_weights_at_the_wrong_place(golden_model, planted, given, plant):
    module, words = plant(planted)
    (fault,) = compare_weights(golden_model, planted)
    assert words in str(fault), fault
    first = climb(golden_model, planted, given).first
    assert first.module == module and words in first.what, first


# ---------------------------------------------------------------------- functions
def softmax_in(dtype):
    def attention(q, k, v, mask=None, causal=False):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:
            scores = scores.masked_fill(~torch.ones_like(scores).bool().tril(), -torch.inf)
        return scores.to(dtype).softmax(-1).to(q.dtype) @ v

    return attention


def seeing(steps):
    def attention(q, k, v, mask=None, causal=False):
        if not causal:
            return reference_slots.attention(q, k, v, mask, causal)
        seen = torch.ones(q.shape[-2], k.shape[-2]).tril(steps).bool()
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    return attention


def bicubic_without_antialias(table, side):
    if table.shape[1] == side:
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2), (side, side), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1)


def gate_for_up(x, gate_up, down, ids, weights):
    return reference_slots.moe(x, gate_up.roll(gate_up.shape[1] // 2, 1), down, ids, weights)


def one_late(x, cos, sin):
    return reference_slots.rotary(x, cos.roll(1, -2), sin.roll(1, -2))


def query_for_key(table, side):
    return reference_slots.relative_table(table, side).transpose(0, 1)


CLIP, FIRST = "model.vision_model.layers.0.self_attn", "model.layers.0.self_attn"
SLOTS = [
    ("attention", softmax_in(torch.float16), CLIP, "half precision: aten::_softmax in float16"),
    ("attention", softmax_in(torch.bfloat16), CLIP, "half precision: aten::_softmax in bfloat16"),
    ("attention", seeing(1), FIRST, "causal mask off by one: a query sees the token after it"),
    ("attention", seeing(-1), FIRST, "causal mask off by one: a query does not see itself"),
    ("resize_grid", bicubic_without_antialias, "", "antialias missing"),
    ("relative_table", query_for_key, "model.sam_model.blocks.0.attn", "query and key exchanged"),
    ("moe", gate_for_up, "model.layers.1.mlp", "gate and up exchanged"),
    (
        "quick_gelu",
        lambda x: F.gelu(x, approximate="tanh"),
        "model.vision_model.layers.0.mlp",
        "tanh formula",
    ),
    ("gelu", lambda x: x * torch.sigmoid(1.702 * x), "model.sam_model.blocks.0.mlp", "quick gelu in place"),
    ("rotary", one_late, FIRST, "angles one position late"),
]


@pytest.mark.parametrize(("slot", "wrong", "module", "words"), SLOTS, ids=[s[3][:30] for s in SLOTS])
def test_functions(golden_model, planted, given, slot, wrong, module, words):
    planted.use_plan({slot: wrong})
    first = climb(golden_model, planted, given).first
    assert first is not None and first.operator == slot and words in first.what, first
    assert first.module.startswith(module), first


# ---------------------------------------------------------------------- settings and code
def test_eps_of_a_norm(golden_model, planted, given):
    planted.model.layers[1].post_attention_layernorm.eps = 1e-2
    first = climb(golden_model, planted, given).first
    assert first.module == "model.layers.1.post_attention_layernorm" and "eps is 0.01, expected" in first.what


def test_one_expert_fewer_by_setting_and_by_code(golden_model, planted, given):
    mlp = planted.model.layers[1].mlp
    top, route = mlp.top, mlp.route
    mlp.top = top - 1
    first = climb(golden_model, planted, given).first
    assert first.module == "model.layers.1.mlp" and f"top is {top - 1}, expected {top}" in first.what
    assert f"router: {top - 1} experts per token, expected {top}" in first.what
    mlp.top = top
    mlp.route = lambda x: [chosen[:, :-1] for chosen in route(x)]
    first = climb(golden_model, planted, given).first
    assert f"router: {top - 1} experts per token, expected {top}" in first.what, first


def test_shared_expert_missing(golden_model, planted, given):
    mlp = planted.model.layers[2].mlp

    def forward(x):
        flat = x.reshape(-1, x.shape[-1])
        ids, weights = mlp.route(flat)
        return mlp.slots.moe(flat, mlp.experts.gate_up_proj, mlp.experts.down_proj, ids, weights).view_as(x)

    mlp.forward = forward
    first = climb(golden_model, planted, given).first
    assert first.module == "model.layers.2.mlp" and "shared_experts is never called" in first.what, first


def test_final_norm_missing(golden_model, planted, given):
    planted.model.norm.forward = lambda x: x
    first = climb(golden_model, planted, given).first
    assert first.module == "model.norm" and "returns its input unchanged" in first.what, first


def test_final_norm_never_called(golden_model, planted, given):
    planted.model.norm = torch.nn.Identity()
    ladder = climb(golden_model, planted, given)
    assert any(fault.name.startswith("model.norm") for fault in ladder.weights)
    assert ladder.first.module == "model.norm", ladder.first


def test_a_layer_that_is_skipped(golden_model, planted, given):
    planted.model.vision_model.layers[1].forward = lambda x: x
    first = climb(golden_model, planted, given).first
    assert first.module == "model.vision_model.layers.1" and "never called" in first.what, first


def test_another_number_of_heads(golden_model, planted, given):
    attention = planted.model.vision_model.layers[0].self_attn
    heads = attention.heads
    attention.heads = heads * 2
    first = climb(golden_model, planted, given).first
    assert f"heads is {heads * 2}, expected {heads}" in first.what, first


def test_class_token_kept(golden_model, planted, given, monkeypatch):
    """The last patch is dropped instead of the class token, before the projector."""
    from model import vision as code

    fuse, run = code.fuse, golden_model.forward

    def wrong(**inputs):
        kept = lambda clip, sam_map: torch.cat((clip[:, :-1], sam_map.flatten(2).mT), -1)  # noqa: E731
        monkeypatch.setattr(code, "fuse", kept)
        try:
            return run.__func__(planted, **inputs)
        finally:
            monkeypatch.setattr(code, "fuse", fuse)

    planted.forward = wrong
    first = climb(golden_model, planted, given).first
    assert first.rung == "between blocks" and "the input of model.projector" in first.what, first


def test_image_newline_missing(golden_model, planted, given):
    planted.model.image_newline.data.zero_()
    first = climb(golden_model, planted, given).first
    assert "image_newline" in str(first), first


def test_positions_off_by_one(golden_model, planted, given, monkeypatch):
    """Rotation is relative, so the logits do not show this fault. The angles do."""
    from model import network as code

    tables = code.rotary_tables
    run = golden_model.forward

    def late(**inputs):
        monkeypatch.setattr(code, "rotary_tables", lambda positions, *rest: tables(positions + 1, *rest))
        try:
            return run.__func__(planted, **inputs)
        finally:
            monkeypatch.setattr(code, "rotary_tables", tables)

    planted.forward = late
    first = climb(golden_model, planted, given).first
    assert first is not None and first.rung == "between blocks" and "model.layers.0" in first.what, first
    assert "one position" in first.what, first


def test_a_block_that_raises_is_named_by_its_operator(golden_model, planted, given):
    layer = planted.model.vision_model.layers[1].mlp
    layer.forward = lambda x: layer.fc2(F.gelu(layer.fc1(x)).transpose(1, 2))
    first = climb(golden_model, planted, given).first
    assert first.module == "model.vision_model.layers.1.mlp", first
    assert "raises" in first.what and first.operator in (
        "aten::addmm",
        "aten::linear",
        "aten::mm",
        "aten::bmm",
        "aten::matmul",  # one kernel on an NPU, and so one name on every device
    ), first


# ---------------------------------------------------------------------- the cache
def test_a_cache_of_one_layer_that_is_stale(golden_model, planted, given):
    """Layer 2 keeps the cache of the prompt: decoded tokens are never written."""
    layer = planted.model.layers[2].self_attn
    forward = layer.forward

    def stale(x, rope, mask, causal, cache):
        before = cache.data[2].clone() if cache is not None and cache.filled else None
        out = forward(x, rope, mask, causal, cache)
        if before is not None:
            cache.data[2] = before
        return out

    layer.forward = stale
    prompt = given["input_ids"].shape[1]
    table = compare_caches(golden_model, planted, given, [5, 9])
    assert (table.first.layer, table.first.first) == (2, prompt), table


def test_a_cache_whose_keys_and_values_are_exchanged(golden_model, planted, given):
    layer = planted.model.layers[1].self_attn
    forward = layer.forward

    def exchanged(x, rope, mask, causal, cache):
        out = forward(x, rope, mask, causal, cache)
        cache.data[1] = cache.data[1].flip(0)
        return out

    layer.forward = exchanged
    assert compare_caches(golden_model, planted, given, []).first.layer == 1
