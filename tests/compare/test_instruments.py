"""The instruments of the ladder one by one; tests/compare/test_planted_faults.py tests them on faults."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn

from deskocr_kit.compare import headroom
from deskocr_kit.compare.cache import compare_caches
from deskocr_kit.compare.headroom import islands, largest
from deskocr_kit.compare.ladder import climb
from deskocr_kit.compare.logits import extended, teacher_forced
from deskocr_kit.compare.metrics import closeness
from deskocr_kit.compare.router import compare_decisions, decisions, replay
from deskocr_kit.compare.trace import blocks_of
from deskocr_kit.compare.weights import compare_weights
from model.fast import references
from tests.helpers.golden import INDEX, inputs

CASE = "text"  # no picture: only the decoder


@pytest.fixture(scope="module")
def given():
    return inputs(CASE)


@pytest.fixture
def other(golden_model):
    return copy.deepcopy(golden_model)


# ---------------------------------------------------------------------- numbers
def test_closeness():
    b = torch.arange(24.0).view(2, 3, 4) + 1
    same = closeness(b, b)
    assert (same.pcc, same.relative, same.largest, same.within, same.first) == (1.0, 0.0, 0.0, 1.0, None)
    a = b.clone()
    a[1, 2, 0] += 5
    off = closeness(a, b)
    assert off.first == (1, 2, 0) and off.largest == 5 and off.within == pytest.approx(23 / 24)
    assert off.relative == pytest.approx(5 / float(b.norm()))
    assert closeness(-b, b).pcc == pytest.approx(-1) and closeness(2 * b, b).pcc == pytest.approx(1)


def test_closeness_of_what_cannot_be_compared():
    assert "shape" in closeness(torch.zeros(2), torch.zeros(3)).problem
    nan = closeness(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0]))
    assert not nan.finite and not nan.ok(1e9) and nan.first == (1,)
    masks = torch.tensor([1.0, -torch.inf])
    assert closeness(masks, masks).ok(1e-9), "equal infinities are equal"
    assert closeness(torch.zeros(0), torch.zeros(0)).ok(0)
    assert closeness(torch.zeros(3), torch.zeros(3)).pcc == 1.0


def test_blocks_of_any_model(golden_model):
    names = blocks_of(golden_model)
    assert "model.layers.2" in names and "model.sam_model.neck" in names and "lm_head" in names
    assert not any(a != b and b.startswith(a + ".") for a in names for b in names), "no block inside another"
    assert blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())) == ["0", "1"]


# ---------------------------------------------------------------------- a model that is not ours
class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_ladder_on_another_model():
    torch.manual_seed(0)
    model = Plain().eval()
    wrong = copy.deepcopy(model)
    assert climb(model, wrong, torch.ones(1, 3, 8)).ok
    wrong.layers[1].norm2.eps = 0.5
    first = climb(model, wrong, torch.randn(1, 3, 8)).first
    assert first.module.startswith("layers.1") and "eps is 0.5" in first.what


def test_shown(golden_model, other, given):
    other.model.layers[1].input_layernorm.weight.data *= 1.5
    ladder = climb(golden_model, other, given)
    assert "WRONG" in repr(ladder) and "first divergence" in repr(ladder)
    rows = repr(ladder).partition("\nweights: ")[0].splitlines()[2:]
    names = [line.partition("≈")[0].split()[1] for line in rows]
    assert len(names) == len(ladder.rungs)
    assert names[0] == "model.embed_tokens", "left of ≈ stand verdict and name only"
    wrong = ladder.chart().axes[0].get_legend_handles_labels()[1]
    assert "WRONG" in wrong and "budget" in wrong
    html = ladder._repr_html_()
    assert "<table>" in html and "WRONG" in html
    other.use_plan({"swiglu": lambda x: x[..., ::2]})
    assert "&lt;lambda&gt;" in climb(golden_model, other, given)._repr_html_()


def test_weights_of_another_dtype_are_the_rounded_ones(golden_model, other):
    assert compare_weights(golden_model, other.bfloat16()) == []
    other.lm_head.weight.data[3, 4] *= 1.01
    (fault,) = compare_weights(golden_model, other)
    assert fault.name == "lm_head.weight" and fault.index == (3, 4)


def test_transposed_weight(golden_model, other):
    weight = other.model.layers[0].self_attn.o_proj.weight
    weight.data = weight.data.T.clone()
    (fault,) = compare_weights(golden_model, other)
    assert fault.what == "transposed"


# ---------------------------------------------------------------------- text
def test_teacher_forced_equals_generation(golden_model, other, given):
    new = INDEX[CASE]["gen24_noeos"][0]
    forced = teacher_forced(golden_model, other, given, new)
    assert (forced.top1, forced.top5, forced.overlap, forced.first) == (1.0, 1.0, 1.0, None)
    assert [r.theirs for r in forced.rows] == new, (
        "greedy text is what teacher forcing says at every position"
    )


def test_teacher_forced_wants_one_sample(golden_model, given):
    with pytest.raises(ValueError, match="one sample"):
        teacher_forced(golden_model, golden_model, {"input_ids": torch.zeros(2, 3, dtype=torch.long)}, [1])
    with pytest.raises(ValueError, match="one new token"):
        teacher_forced(golden_model, golden_model, given, [])


def test_caches(golden_model, other, given):
    table = compare_caches(golden_model, other, given, [7, 8])
    assert len(table) == golden_model.config.decoder.layers and table.first is None
    other.model.layers[1].self_attn.qkv_proj.weight.data[0] *= 2  # a cache has no rows of q
    assert compare_caches(golden_model, other, given)[1].first is None
    width = golden_model.config.decoder.width
    other.model.layers[1].self_attn.qkv_proj.weight.data[2 * width] *= 2  # it has rows of v
    row = compare_caches(golden_model, other, given).first
    assert row.layer == 1 and row.values.relative > row.keys.relative
    assert "WRONG" in repr(compare_caches(golden_model, other, given))


def test_cache_of_decoded_tokens_equals_one_pass(golden_model, given):
    """Decoding token by token fills the cache with the same values as one pass over the whole text."""
    from deskocr_kit.compare.cache import fill_cache

    stepwise = fill_cache(golden_model, given, [7, 8, 9])
    whole = fill_cache(golden_model, extended(given, torch.tensor([7, 8, 9])))
    assert closeness(stepwise.data, whole.data).relative < 1e-5


# ---------------------------------------------------------------------- router
def test_decisions_and_replay(golden_model, other, given):
    def run(model):
        return lambda: model(**given)

    chosen = decisions(golden_model, run(golden_model))
    assert set(chosen) == {"model.layers.1.mlp", "model.layers.2.mlp"}
    assert all(r.verdict == "agrees" for r in compare_decisions(decisions(other, run(other)), chosen))
    other.model.layers[2].mlp.gate.weight.data.mul_(-1)
    rows = compare_decisions(decisions(other, run(other)), chosen)
    assert rows[0].verdict == "agrees" and "other experts" in rows[1].verdict and rows[1].first is not None
    with torch.no_grad(), replay(other, chosen):
        logits = other(**given).logits
    assert closeness(logits, golden_model(**given).logits).relative < 1e-5
    assert "route" not in vars(other.model.layers[2].mlp), "the router is its own again"


def test_replay_of_other_inputs_is_refused(golden_model, other, given):
    chosen = decisions(golden_model, lambda: golden_model(**given))
    longer = extended(given, torch.tensor([5]))
    with pytest.raises(ValueError, match="no decision recorded"), replay(other, chosen):
        other(**longer)


# ---------------------------------------------------------------------- range
def test_headroom(golden_model, given, tmp_path):
    found = headroom(golden_model, lambda: golden_model(**given), about="golden")
    assert list(found.layers)[-1] == "lm_head" and found.dtype == "float32"
    with torch.no_grad():
        logits = golden_model(**given).logits
    assert found.layers["lm_head"] == pytest.approx(float(logits.abs().max()))
    assert found.needs_fp32() == [] and "no operator needs fp32" in repr(found)
    found.chart().savefig(tmp_path / "headroom.png")
    assert (tmp_path / "headroom.png").stat().st_size > 1000


def test_islands_are_what_fp16_computes_in_fp32(golden_model, other, given):
    other.half().use_plan(references())  # model.fast computes less of the norm in fp32
    kept = islands(other, lambda: other(**given))
    operators = {op for module, op, _ in kept if module.endswith("layernorm")}
    assert {"aten::pow", "aten::mean", "aten::rsqrt"} <= operators
    assert not any(op == "aten::mm" and "self_attn" in module for module, op, _ in kept)


def test_largest():
    assert largest(torch.tensor([1.0, -3.0])) == 3.0
    assert largest(torch.tensor([1.0, -torch.inf])) == 1.0, "a mask"
    assert largest(torch.tensor([1.0, torch.inf])) == float("inf")
    assert largest(torch.tensor([float("nan")])) == float("inf")


def test_the_relative_error_is_the_documented_formula():
    from deskocr_kit.device.tolerances import relative_error

    a, b = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 0.0, 3.0])
    assert relative_error(a, b) == pytest.approx(5 / 18**0.5)  # |(0, 4, -3)| / |(3, 0, 3)|
    assert relative_error(a.half(), b.double()) == relative_error(a, b)
    assert relative_error(a, b[:2]) == float("inf") and relative_error(a[:0], b[:0]) == 0
    holes = torch.tensor([1.0, torch.nan, torch.inf])
    assert relative_error(holes, holes) == 0
    for wrong in (
        [torch.nan, torch.nan, torch.inf],
        [1.0, torch.inf, torch.inf],
        [1.0, torch.nan, -torch.inf],
    ):
        assert relative_error(torch.tensor(wrong), holes) == float("inf")


def test_every_dtype_has_tolerances():
    from deskocr_kit.device.dtypes import DTYPES
    from deskocr_kit.device.tolerances import TOLERANCES

    assert set(DTYPES.values()) <= set(TOLERANCES)
    for each in TOLERANCES.values():
        assert each.block <= each.network
