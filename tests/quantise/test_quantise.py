"""Weights in 8 and 4 bits: the arithmetic, the modules, a whole model, and refused combinations."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn as nn
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.quantise import modules
from deskocr_kit.quantise import product as products
from deskocr_kit.quantise.apply import quantise, weight_bytes
from deskocr_kit.quantise.modules import Held, QuantLinear
from deskocr_kit.quantise.pack import GROUP, pack
from deskocr_kit.quantise.table import compare
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from model import DeepseekOCRForCausalLM, slots
from model.decoder import MoE
from model.safetensors_io import CheckpointError
from tests.helpers import npu_double

HALF = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}  # rounding of x, w and the sum


@pytest.fixture(scope="module")
def plain():
    return Reader.load("nano", "cpu", "fp32")


def fresh() -> DeepseekOCRForCausalLM:
    return Reader.load("nano", "cpu", "fp32").model


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (8, 32), (4, 0), (4, 32), (4, 7)])
@pytest.mark.parametrize("columns", [1, 5, 32, 67])
def test_rounding_costs_at_most_half_a_step(bits, group, columns):
    torch.manual_seed(0)
    w = torch.randn(9, columns) * torch.logspace(-12, 3, 9)[:, None]
    w[4] = 0
    w[5, 0] = 1e4  # an outlier makes only its own row (or group) coarser
    packed = pack(w, bits, group)
    # The scale makes the largest value the largest integer, so nothing is clipped; rounding to the nearest
    # integer is then off by half a step at most (and by fp32's own rounding).
    assert ((packed.unpack() - w).abs() <= 0.5 * packed.steps() * (1 + 1e-5)).all()
    assert (packed.unpack()[4] == 0).all() and torch.isfinite(packed.scales).all()
    largest = {8: 127, 4: 7}[bits]
    assert packed.integers().dtype == torch.int8 and packed.integers().abs().max() == largest
    assert packed.unpack().shape == w.shape


def test_an_outlier_harms_its_own_row_or_group_only():
    torch.manual_seed(0)
    w = torch.randn(2, 64)
    w[0, 0] = 1000.0
    quiet, loud = (pack(w, 4, g) for g in (32, 0))
    away = lambda p: (p.unpack() - w).abs()  # noqa: E731
    assert away(loud)[0, 1:].max() > 1 > away(loud)[1].max()
    assert away(quiet)[0, 1:32].max() > 1 > away(quiet)[0, 32:].max()


def test_int4_is_half_a_byte_and_comes_back_exactly():
    q = torch.arange(-7, 8).float().repeat(3, 1)  # 15 columns: the last byte is half empty
    packed = pack(q, 4, 0)
    assert packed.values.shape == (3, 8) and packed.values.dtype == torch.uint8
    assert torch.equal(packed.integers().float(), q) and torch.equal(packed.unpack(), q)


def test_stacks_are_packed_as_their_matrices():
    torch.manual_seed(0)
    w = torch.randn(3, 6, 40)
    for bits in (8, 4):
        stack = pack(w, bits)
        for e in range(3):
            assert torch.equal(stack[e].unpack(), pack(w[e], bits).unpack())
        assert torch.equal(stack[torch.tensor([2, 0])].unpack(), stack.unpack()[[2, 0]])


@pytest.mark.parametrize("wrong", [{"bits": 3}, {"group": -1}, {"weight": torch.tensor([[1.0, torch.nan]])}])
def test_what_cannot_be_packed_is_refused(wrong):
    with pytest.raises(ValueError, match=r"bits=3|group=-1|NaN"):
        pack(**{"weight": torch.ones(1, 2), **wrong})


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(1, 64), (2, 3, 64), (40, 64), (0, 64), (2, 67)])
def test_products_mean_the_unpacked_matrix(dtype, bits, shape):
    torch.manual_seed(0)
    linear = nn.Linear(shape[-1], 33)
    packed = pack(linear.weight, bits)
    ours = QuantLinear(packed, nn.Parameter(linear.bias.detach().to(dtype)))
    x = torch.randn(shape).to(dtype)
    y = ours(x)
    expected = x.double() @ packed.unpack(torch.float64).T + linear.bias.double()
    assert y.dtype == dtype and y.shape == expected.shape
    assert (y.double() - expected).norm() <= HALF[dtype] * expected.norm()


def test_the_kernel_of_torch_is_used_where_it_is_safe(monkeypatch):
    called, real = [], products.int8_kernel
    monkeypatch.setattr(products, "int8_kernel", lambda *a: called.append(a[0].shape) or real(*a))
    for columns, rows, bits in [(64, 1, 8), (64, 40, 8), (67, 1, 8), (64, 1, 4)]:
        products.product(torch.ones(rows, columns), pack(torch.ones(4, columns), bits))
    assert called == [(1, 64)]


def test_fp16_sums_of_integers_would_overflow():
    x, w = torch.full((1, 1280), 5.0, dtype=torch.float16), torch.full((2, 1280), 1e-3)
    packed = pack(w)
    assert torch.isinf(x @ packed.integers().half().T).all()  # the reason not to scale after the product
    assert torch.allclose(products.product(x, packed).float(), torch.tensor(6.4), rtol=1e-2)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("route", ["one after the other", "gathered", "one token"])
def test_experts(bits, route):
    torch.manual_seed(0)
    gate_up, down = (pack(torch.randn(shape) / 4, bits) for shape in ((5, 24, 16), (5, 16, 12)))
    x, ids = torch.randn(3, 16), torch.tensor([[0, 3], [3, 1], [2, 3]])
    weights = torch.rand(3, 2)
    if route == "one token":
        x, ids, weights = x[:1], ids[:1], weights[:1]
    if route == "gathered":
        ours = modules._gathered(x, gate_up, down, ids, weights)
    else:
        ours = modules.moe(x, Held(gate_up), Held(down), ids, weights)
    expected = slots.moe(x, gate_up.unpack(), down.unpack(), ids, weights)
    assert (ours - expected).norm() < 1e-5 * expected.norm()


def test_what_is_quantised_and_what_is_not():
    model = fresh()
    before, c = weight_bytes(model), model.config.decoder
    kept = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    linears = sum(m.weight.numel() for n, m in model.named_modules() if isinstance(m, nn.Linear))
    errors = quantise(model, 8)
    left = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    routers = {f"{n}.gate" for n, m in model.named_modules() if isinstance(m, MoE)}
    assert left == {"lm_head", *routers} and len(routers) == c.layers - c.dense_layers
    held = [m for m in model.modules() if isinstance(m, Held)]
    assert len(errors) == len(held) == len(kept - left) + 2 * len(routers)
    assert not any("norm" in e.name or "embed" in e.name or "pos" in e.name for e in errors)
    assert [e.relative for e in errors] == sorted((e.relative for e in errors), reverse=True)
    assert all(0 < e.relative < 0.02 and e.largest <= 0.501 for e in errors)
    # 4 bytes per weight became 1, plus 4 per output row for its scale
    experts = len(routers) * c.experts * 3 * c.expert_hidden * c.width
    staying = c.vocab * c.width + len(routers) * c.experts * c.width
    rows = sum(m.scales.numel() for m in held)
    assert weight_bytes(model) == before - 3 * (linears - staying + experts) + 4 * rows
    with pytest.raises(ValueError, match="quantised already"):
        quantise(model, 4)
    model.half()
    assert all(m.scales.dtype == torch.float32 for m in held) and model.dtype == torch.float16


def test_a_quantised_model_is_not_saved(tmp_path):
    model = fresh()
    quantise(model)
    with pytest.raises(CheckpointError, match="a quantised model cannot be saved") as caught:
        model.save_pretrained(tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_plan_cannot_hand_packed_experts_to_plain_code(plain):
    model = fresh()
    quantise(model)
    model.use_plan({"moe": slots.moe})
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()


def test_text_parity_of_nano(plain):
    pages = sample_pages()[:2]
    table = compare(lambda: Reader.load("nano", "cpu", "fp32"), (8, 4), pages, max_new_tokens=40)
    was, int8, int4 = table.rows
    assert was.same == 1.0 and [row.weights for row in table.rows] == ["float32", "int8", "int4"]
    assert int8.cer <= was.cer + 0.03 and int8.same >= 0.95
    assert was.bytes > int8.bytes > int4.bytes and all(row.seconds > 0 for row in table.rows)
    assert int8.layers[0].relative < int4.layers[0].relative
    assert "int4" in repr(table) and "<td>int8</td>" in table._repr_html_()
    assert json.loads(json.dumps(table.record()))["rows"][1]["weights"] == "int8"


def test_the_command_refuses_other_bits():
    result = CliRunner().invoke(app, ["quantise", "--bits", "8,3"])
    assert result.exit_code == 2 and "--bits 8,3" in result.output
    result = CliRunner().invoke(app, ["ocr", "x.png", "--weights", "int3"])
    assert result.exit_code == 2 and "plain, int8, int4" in result.output


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("group", [0, 32])
def test_the_npu_operator_is_called_as_published(dtype, group):
    torch.manual_seed(0)
    packed = pack(torch.randn(12, 80), 8, group)
    x, bias = torch.randn(2, 3, 80).to(dtype), torch.randn(12).to(dtype)
    with npu_double.installed():  # binds the call to the schemas of both wheels
        ours = products.npu_int8(x, packed.values, packed.scales, packed.group, bias)
        assert npu_double.called == ["npu_weight_quant_batchmatmul"]
    expected = products.unpacked(x.float(), packed, bias.float())
    assert ours.shape == expected.shape and ours.dtype == dtype
    assert (ours.float() - expected).norm() < HALF[dtype] * expected.norm()


def test_a_wrong_npu_result_is_thrown_away():
    packed, x = pack(torch.randn(12, 80)), torch.randn(4, 80).half()
    broken = lambda x, w, s, **_: x @ w.to(x.dtype)  # noqa: E731  (forgets the scale)
    checked = products.self_checked(products.npu_int8, products.plain_int8, "npu_weight_quant_batchmatmul")
    with (
        npu_double.installed(npu_weight_quant_batchmatmul=broken),
        pytest.warns(UserWarning, match="has a relative error of"),
    ):
        y = checked(x, packed.values, packed.scales, 0, None)
    assert torch.equal(y, products.unpacked(x, packed))


def test_usual_groups_suit_the_npu():
    assert all(group % 32 == 0 for group in GROUP.values())
