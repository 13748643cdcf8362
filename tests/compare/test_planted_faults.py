"""Planted faults: the ladder must find each and name its module, its operator and the mistake."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.compare.cache import compare_caches
from deskocr_kit.compare.ladder import climb
from deskocr_kit.compare.logits import teacher_forced
from deskocr_kit.compare.router import decisions, replay
from model import slots as reference_slots
from tests.helpers.golden import INDEX, small_page


@pytest.fixture(scope="module")
def given():
    return small_page()


@pytest.fixture
def planted(golden_model):
    return copy.deepcopy(golden_model)


def climbed(golden_model, planted, given):
    return climb(golden_model, planted, given)


def parameter(model, name):
    return dict(model.named_parameters())[name].data


def flip(tensor, index, bit):
    """Flip one bit of one fp32 value."""
    tensor.view(torch.int32)[index] ^= 1 << bit if bit < 31 else -(1 << 31)


# ---------------------------------------------------------------------- nothing planted
def test_a_copy_has_no_fault(golden_model, planted, given):
    ladder = climbed(golden_model, planted, given)
    assert ladder.ok and not ladder.weights and all(r.ok for r in ladder.rungs)
    assert ladder.output.relative == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lower_dtype_is_no_fault(golden_model, planted, given, dtype):
    ladder = climbed(golden_model, planted.to(dtype), given)
    assert not ladder.weights, "a rounded copy of the weights is what it should be"
    assert ladder.first is None, ladder
    assert all(r.peer is not None for r in ladder.rungs if ":" not in r.name and "." in r.name)


# ---------------------------------------------------------------------- weights
WEIGHTS = [
    ("model.layers.1.mlp.experts.down_proj", (3, 5, 7), 0),
    ("model.layers.2.self_attn.qkv_proj.weight", (100, 4), 27),
    ("model.sam_model.blocks.2.mlp.lin2.weight", (1, 200), 31),
    ("model.vision_model.layers.1.layer_norm2.bias", (9,), 22),
]


@pytest.mark.parametrize("name, index, bit", WEIGHTS)
def test_one_wrong_bit(golden_model, planted, given, name, index, bit):
    flip(parameter(planted, name), index, bit)
    ladder = climbed(golden_model, planted, given)
    (fault,) = ladder.weights
    assert (fault.name, fault.index, fault.bit) == (name, index, bit)
    assert ladder.first is not None and f"one wrong bit (bit {bit})" in ladder.first.what
    assert name.startswith(ladder.first.module)


def test_one_wrong_bit_that_makes_nan(golden_model, planted, given):
    weight = parameter(planted, "model.layers.0.mlp.down_proj.weight")
    weight[3, 3] = 1.5
    golden = copy.deepcopy(golden_model)
    parameter(golden, "model.layers.0.mlp.down_proj.weight")[3, 3] = 1.5
    flip(weight, (3, 3), 30)  # the highest bit of the exponent, gives NaN
    assert weight[3, 3].isnan()
    first = climb(golden, planted, given).first
    assert first.module == "model.layers.0.mlp.down_proj" and "bit 30" in first.what


@pytest.mark.parametrize(
    "holder, a, b",
    [
        ("model.layers", 1, 2),
        ("model.vision_model.layers", 0, 2),
        ("model.sam_model.blocks", 0, 2),
    ],
)
def test_swapped_layers(golden_model, planted, given, holder, a, b):
    x, y = (planted.get_submodule(f"{holder}.{i}") for i in (a, b))
    for p, q in zip(x.parameters(), y.parameters(), strict=True):
        p.data, q.data = q.data, p.data
    ladder = climbed(golden_model, planted, given)
    (fault,) = ladder.weights
    assert {fault.name, fault.other} == {f"{holder}.{a}", f"{holder}.{b}"}
    assert ladder.first.module.startswith(f"{holder}.{a}")
    assert "exchanged" in ladder.first.what


def test_swapped_matrices_inside_a_layer(golden_model, planted, given):
    attention = planted.model.layers[1].self_attn.qkv_proj.weight.data
    width = attention.shape[1]
    attention[: 2 * width] = attention[: 2 * width].roll(width, 0)  # q and k
    first = climbed(golden_model, planted, given).first
    assert first.module == "model.layers.1.self_attn.qkv_proj"
    assert f"rows at the wrong place: 0:{width} hold what belongs in {width}:{2 * width}" in first.what, first


# ---------------------------------------------------------------------- slots
def interleaved(x, cos, sin):
    half = x.shape[-1] // 2
    cos, sin = (t[..., :half].repeat_interleave(2, -1) for t in (cos, sin))
    return x * cos + torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2) * sin


def backwards(x, cos, sin):
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((right, -left), -1) * sin


def unfold_by_position(x, weight, bias, stride=1, padding=0):
    """Padding passed as dilation: error at padding 0, wrong shape at stride 2, correct at 3x3 stride 1."""
    columns = F.unfold(x, weight.shape[-2:], padding, stride)
    out = torch.einsum("oi,bil->bol", weight.flatten(1), columns)
    side = (x.shape[-1] + 2 * padding - weight.shape[-1]) // stride + 1
    return (out if bias is None else out + bias[:, None]).view(len(x), len(weight), side, side)


def unfold_by_position_but_patches(x, weight, bias, stride=1, padding=0):
    plain = reference_slots.conv2d if padding == 0 else unfold_by_position
    return plain(x, weight, bias, stride, padding)


def dilated(x, weight, bias, stride=1, padding=0):
    """The same mistake, cropped to the right shape, so that only the values are wrong."""
    right = F.conv2d(x, weight, bias, stride=stride, padding=padding)
    wrong = F.conv2d(x, weight, bias, stride=stride, padding=2 * padding, dilation=max(1, 2 * padding))
    return wrong[..., : right.shape[-2], : right.shape[-1]]


def scatter_into_a_copy(embeds, mask, source):
    """A patched masked_scatter_ that returns a new tensor does not change the row view in its call."""
    for row, places in zip(embeds, mask, strict=True):
        row.masked_scatter(places[:, None], source)
    return embeds


def scatter_backwards(embeds, mask, source):
    return reference_slots.place_images(embeds, mask, source.flip(0))


def no_bias(q, k, v, rel_h, rel_w):
    return F.scaled_dot_product_attention(q, k, v)


def unscaled(q, k, v, mask=None, causal=False):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0)


def not_causal(q, k, v, mask=None, causal=False):
    return F.scaled_dot_product_attention(q, k, v)


def up_then_gate(x):
    gate, up = x.chunk(2, -1)
    return gate * F.silu(up)


def last_expert_lost(x, gate_up, down, ids, weights):
    return reference_slots.moe(x, gate_up, down, ids[:, :-1], weights[:, :-1])


def layer_norm_for_rms(x, weight, eps):
    return F.layer_norm(x, x.shape[-1:], weight, None, eps)


SLOTS = [
    ("gelu", lambda x: F.gelu(x, approximate="tanh"), "model.sam_model.blocks.0.mlp", "tanh"),
    ("quick_gelu", F.gelu, "model.vision_model.layers.0.mlp", "gelu in place of quick gelu"),
    ("quick_gelu", F.silu, "model.vision_model.layers.0.mlp", "1.702"),
    ("rotary", interleaved, "model.layers.0.self_attn", "rope layout"),
    ("rotary", backwards, "model.layers.0.self_attn", "backwards"),
    ("rotary", lambda x, cos, sin: x, "model.layers.0.self_attn", "not rotated"),
    ("conv2d", unfold_by_position, "model.sam_model.patch_embed.proj", "dilation"),
    ("conv2d", unfold_by_position_but_patches, "model.sam_model.net_2", "padding passed as dilation"),
    ("conv2d", dilated, "model.sam_model.neck.2", "convolution"),
    ("place_images", scatter_into_a_copy, "", "into a copy"),
    ("place_images", scatter_backwards, "", "relative"),
    ("rel_pos_attention", no_bias, "model.sam_model.blocks.0.attn", "bias missing"),
    ("attention", unscaled, "model.vision_model.layers.0.self_attn", "scale missing"),
    ("attention", not_causal, "model.layers.0.self_attn", "mask ignored"),
    ("swiglu", up_then_gate, "model.layers.0.mlp", "gate and up exchanged"),
    ("moe", last_expert_lost, "model.layers.1.mlp", "last_expert_lost"),
    ("rms_norm", layer_norm_for_rms, "model.layers.0.input_layernorm", "layer norm"),
]


@pytest.mark.parametrize("slot, wrong, module, words", SLOTS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_function_is_named(golden_model, planted, given, slot, wrong, module, words):
    planted.use_plan({slot: wrong})
    ladder = climbed(golden_model, planted, given)
    assert ladder.first is not None and not ladder.weights
    assert (ladder.first.module, ladder.first.operator) == (module, slot), ladder.first
    assert words in ladder.first.what, ladder.first


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_small_mistake_does_not_hide_in_a_lower_dtype(golden_model, planted, given, dtype):
    """tanh for erf is an error of 5e-4, less than the rounding of bf16, but fp32 is compared as well."""
    planted.to(dtype).use_plan({"gelu": lambda x: F.gelu(x, approximate="tanh")})
    ladder = climb(golden_model, planted, given)
    assert ladder.first is not None and ladder.first.operator == "gelu" and "tanh" in ladder.first.what


# ---------------------------------------------------------------------- settings and code
def test_renormalised_router(golden_model, planted, given):
    for layer in planted.model.layers[1:]:
        layer.mlp.renormalise = True
    first = climbed(golden_model, planted, given).first
    assert first.module == "model.layers.1.mlp"
    assert "renormalised" in first.what and "renormalise is True" in first.what


def test_renormalised_router_by_other_code(golden_model, planted, given):
    """No setting shows this fault, only the output of the router."""
    mlp = planted.model.layers[2].mlp
    route = mlp.route

    def renormalised(x):
        ids, weights = route(x)
        return ids, weights / weights.sum(-1, keepdim=True)

    mlp.route = renormalised
    first = climbed(golden_model, planted, given).first
    assert first.module == "model.layers.2.mlp" and "they sum to 1" in first.what


def test_wrong_eps(golden_model, planted, given):
    planted.model.vision_model.layers[1].layer_norm1.eps = 1e-2
    first = climbed(golden_model, planted, given).first
    assert (
        first.module == "model.vision_model.layers.1.layer_norm1"
        and "eps is 0.01, expected 1e-05" in first.what
    )


def test_window_of_the_wrong_size(golden_model, planted, given):
    planted.model.sam_model.blocks[0].window = 7
    first = climbed(golden_model, planted, given).first
    assert first.module.startswith("model.sam_model.blocks.0")
    assert "window is 7, expected 14" in first.what or "raises" in first.what


def test_separator_missing_is_code_between_blocks(golden_model, planted, given, monkeypatch):
    encode = planted.encode_pages

    def without_separator(images, crop):
        return [torch.cat((page[:-1], page[-2:-1])) for page in encode(images, crop)]

    planted.encode_pages = without_separator
    first = climbed(golden_model, planted, given).first
    assert first.rung == "between blocks" or first.operator == "place_images"
    assert first.module == ""


def test_angles_of_another_theta(golden_model, planted, given):
    planted.config.rope_theta = 500.0
    first = climbed(golden_model, planted, given).first
    assert first.rung == "between blocks" and "model.layers.0" in first.what
    assert "decoder.py" in first.site


def test_dropped_residual(golden_model, planted, given):
    block = planted.model.vision_model.layers[1]
    block.forward = lambda x: block.mlp(block.layer_norm2(x + block.self_attn(block.layer_norm1(x))))
    first = climbed(golden_model, planted, given).first
    assert first.module == "model.vision_model.layers.1" and "aten::add" in first.what


# ---------------------------------------------------------------------- range
def test_fp16_overflow(golden_model, planted, given):
    """Scale fc2 up by a million and its successor down: the same network, but not in fp16."""
    golden = copy.deepcopy(golden_model)
    for model in (golden, planted):
        mlp = model.model.layers[1].mlp.shared_experts
        mlp.gate_up_proj.weight.data *= 3e3
    planted.half()
    ladder = climb(golden, planted, given)
    assert ladder.first.module.startswith("model.layers.1.mlp.shared_experts"), ladder.first
    assert "65504" in ladder.first.what and "fp32" in ladder.first.what


def test_fp16_overflow_inside_one_function(golden_model, planted, given):
    """The squares of a norm computed in fp16."""

    def half_norm(x, weight, eps):
        x = x * 300
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps * 9e4))

    planted.use_plan({"rms_norm": half_norm})
    assert climb(golden_model, planted, given).ok, "in fp32 it is right"
    planted.half()
    first = climb(golden_model, planted, given).first
    assert first.operator == "rms_norm" and first.module == "model.layers.0.input_layernorm"


# ---------------------------------------------------------------------- token, cache, router
def test_the_token_is_named(golden_model, planted, given):
    """A wrong embedding row that one token uses: the fault is at that token and not before it."""
    ids = given["input_ids"][0].tolist()
    last = int(given["images_seq_mask"][0].nonzero().max())
    at = next(i for i, t in enumerate(ids) if ids.count(t) == 1 and i > last)
    planted.model.embed_tokens.weight.data[ids[at], 3] += 0.5
    first = climbed(golden_model, planted, given).first
    assert first.module == "model.embed_tokens" and first.token == f"sample 0, token {at}"


def test_cache_written_one_position_late(golden_model, planted, given, monkeypatch):
    assert compare_caches(golden_model, planted, given, [5, 9]).first is None
    layer = planted.model.layers[1].self_attn
    forward = layer.forward

    def late(x, rope, mask, causal, cache):
        out = forward(x, rope, mask, causal, cache)
        if cache.filled:
            cache.data[1] = cache.data[1].roll(1, dims=3)
        return out

    layer.forward = late
    row = compare_caches(golden_model, planted, given, [5, 9]).first
    assert row.layer == 1 and row.first == 0


def test_replayed_decisions_tell_a_wrong_choice_from_a_wrong_expert(golden_model, planted, given):
    new = INDEX["g640"]["gen24"][0][:6]
    chosen = decisions(golden_model, lambda: golden_model(**given))
    planted.model.layers[1].mlp.gate.weight.data.mul_(-1)  # choose the worst experts
    wrong = teacher_forced(golden_model, planted, given, new)
    assert wrong.logits.relative > 1e-2
    with replay(planted, chosen), torch.no_grad():
        told = planted(**given).logits
    assert torch.allclose(told, golden_model(**given).logits, atol=1e-4), "the experts are right"
