"""Each kernel in Triton's interpreter against fp64, on hard and odd shapes.

Budgets: one rounded result of sums in fp32. fp32: 3e-6, the order of the sum. fp16: 3e-3, two or three
roundings behind each other. bf16: 3 * 2**-7, the same; the interpreter rounds bf16 by cutting off, which
doubles the error.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as draw_from
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.kernels import (
    attention,
    candidates,
    conv2d,
    decode_attention,
    elementwise,
    experts,
    grouped,
    launch,
    map_attention,
    norms,
    router,
    rows,
    vector_products,
    window_attention,
)
from model import slots
from model.decode_layer import Experts
from model.fast.rel_pos_attention import bias_parts

pytestmark = pytest.mark.fuzz


def given(*strategies):
    """A tenth of the usual examples: an interpreted launch takes milliseconds per program."""
    return lambda test: settings(max_examples=max(4, settings().max_examples // 10))(
        draw_from(*strategies)(test)
    )


BUDGETS = {torch.float32: 3e-6, torch.float16: 3e-3, torch.bfloat16: 3 * 2**-7}
dtypes = st.sampled_from(list(BUDGETS))
seeds = st.integers(0, 2**31)


def small(low: int, high: int):
    return st.integers(low, high)


def numbers(seed: int, dtype: torch.dtype):
    """A function that draws a tensor of a shape, with a generator of its own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).to(dtype)

    return draw


def wide(*tensors):
    return [t.double() if torch.is_tensor(t) and t.is_floating_point() else t for t in tensors]


def close(ours: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Within the budget, and two last places of 1 per number: sums of numbers of about 1 may cancel."""
    assert ours.shape == expected.shape
    size = expected.double().norm().item()
    room = 2**-22 * expected.numel() ** 0.5 / size if size else 0.0
    assert relative_error(ours, expected) <= BUDGETS[dtype] + room


@given(dtypes, seeds, small(1, 90), small(1, 300))
def test_rms_norm(dtype, seed, n, d):
    draw = numbers(seed, dtype)
    x, other, weight = draw(n, d), draw(n, d), draw(d)
    close(norms.rms_norm(x, weight, 1e-6)[1], slots.rms_norm(*wide(x, weight), 1e-6), dtype)
    total, normed = norms.rms_norm(x, weight, 1e-6, other)
    close(total, x.double() + other.double(), dtype)
    close(normed, slots.rms_norm(*wide(total, weight), 1e-6), dtype)


@given(dtypes, seeds, small(1, 90), small(2, 300))
def test_layer_norm(dtype, seed, n, d):
    draw = numbers(seed, dtype)
    x, other, weight, bias = draw(n, d), draw(n, d), draw(d), draw(d)
    total, normed = norms.layer_norm(x, weight, bias, 1e-5, other)
    close(total, x.double() + other.double(), dtype)
    close(normed, F.layer_norm(total.double(), (d,), *wide(weight, bias), 1e-5), dtype)


@given(dtypes, seeds, st.lists(small(1, 7), min_size=0, max_size=3), small(1, 200))
def test_activations(dtype, seed, shape, half):
    draw = numbers(seed, dtype)
    x = draw(*shape, 2 * half, scale=3.0)
    close(elementwise.swiglu(x), slots.swiglu(x.double()), dtype)
    exact = slots.gelu(x.double())
    away = (elementwise.gelu(x).double() - exact).norm()
    # Far below 0, 1 + erf(x) cancels: what is left is the last place of 1, times x.
    assert away <= BUDGETS[dtype] * exact.norm() + 2**-23 * x.double().norm()
    close(elementwise.gelu(x, quick=True), slots.quick_gelu(x.double()), dtype)


@given(dtypes, seeds, small(1, 3), small(1, 5), small(1, 9), small(1, 40), st.booleans(), st.booleans())
def test_rotary(dtype, seed, b, h, n, half, per_sample, heads_inside):
    draw = numbers(seed, dtype)
    x = draw(b, n, h, 2 * half).transpose(1, 2) if heads_inside else draw(b, h, n, 2 * half)
    cos, sin = (draw(b if per_sample else 1, 1, n, 2 * half) for _ in "cs")
    close(elementwise.rotary(x, cos, sin), slots.rotary(*wide(x, cos, sin)), dtype)


@given(
    dtypes, seeds, small(1, 2), small(1, 9), small(1, 40), st.tuples(small(1, 5), small(1, 5)),
    st.tuples(small(1, 4), small(1, 4)), st.tuples(small(0, 3), small(0, 3)), st.booleans(), st.booleans(),
)  # fmt: skip
def test_conv2d(dtype, seed, b, c, o, kernel, stride, padding, bias, turned):
    draw = numbers(seed, dtype)
    side = max(kernel) + 6
    x = draw(b, c, side, side + 2)
    x = x.transpose(2, 3) if turned else x
    weight, shift = draw(o, c, *kernel), draw(o) if bias else None
    ours = conv2d.conv2d(x, weight, shift, stride, padding)
    expected = F.conv2d(*wide(x, weight), None if shift is None else shift.double(), stride, padding)
    close(ours, expected, dtype)


@given(seeds, small(1, 9), small(1, 70), small(1, 9))
def test_rows_are_moved_bit_by_bit(seed, n, d, m):
    draw = numbers(seed, torch.float16)
    base, source = draw(n, d), draw(m, d)
    base[0, 0] = -0.0
    chosen = torch.randint(-1, m, (n,), generator=torch.Generator().manual_seed(seed)).int()
    expected = torch.where((chosen < 0)[:, None], base, source[chosen.clamp(min=0).long()])
    ours = rows.place_rows(base, source, chosen)
    assert torch.equal(ours.view(torch.int16), expected.view(torch.int16))


@given(dtypes, seeds, small(1, 3), small(1, 4), small(1, 200), small(1, 40), st.booleans())
def test_decode_attention(dtype, seed, b, h, n, width, masked):
    draw = numbers(seed, dtype)
    q, k, v = draw(b, h, 1, width), draw(b, h, n + 5, width)[:, :, :n], draw(b, h, n + 5, width)[:, :, :n]
    mask = None
    if masked:
        mask = torch.rand(b, 1, 1, n, generator=torch.Generator().manual_seed(seed)) < 0.5
        mask[..., seed % n] = True
    close(decode_attention.decode_attention(q, k, v, mask), slots.attention(*wide(q, k, v), mask), dtype)


@given(dtypes, seeds, small(1, 2), small(1, 2), small(1, 11), small(1, 40))
def test_map_attention(dtype, seed, b, h, side, width):
    draw = numbers(seed, dtype)
    q, k, v = (draw(b, side * side, h, width).transpose(1, 2) for _ in "qkv")
    rel = draw(side, side, width, scale=0.3), draw(side, side, width, scale=0.3)
    ours = map_attention.map_attention(q, k, v, *bias_parts(q, *rel))
    rounded = 4 if dtype != torch.float32 else 1  # the bias is rounded before it is added
    expected = slots.rel_pos_attention(*wide(q, k, v, *rel))
    assert relative_error(ours, expected) <= rounded * BUDGETS[dtype]


@given(dtypes, seeds, small(1, 2), small(1, 3), small(1, 70), small(1, 140), small(1, 40), st.booleans())
def test_attention_of_many_queries(dtype, seed, b, h, n, m, width, causal):
    draw = numbers(seed, dtype)
    q = draw(b, n, h, width).transpose(1, 2)
    k, v = draw(b, h, m + 3, width)[:, :, :m], draw(b, m, h, width).transpose(1, 2)
    ours = attention.attention(q, k, v, causal)
    close(ours, slots.attention(*wide(q, k, v), None, causal), dtype)
    assert ours.transpose(1, 2).is_contiguous()  # the output product reads it without a copy


@given(dtypes, seeds, small(1, 2), small(1, 5), small(1, 2), small(1, 24), small(0, 6), small(1, 7))
def test_window_attention(dtype, seed, b, side, h, width, window, stored):
    """Windows that do not fill the map, one window larger than the map, tables of another size."""
    draw = numbers(seed, dtype)
    d = h * width
    qkv, bias = draw(b, side, side, 3 * d), draw(3 * d)
    tables = draw(2 * stored - 1, width, scale=0.3), draw(2 * stored - 1, width, scale=0.3)
    ours = candidates.sam_attention(qkv, bias, *tables, h, window)
    # An interpolated table is rounded before it is read; so is that of the reference in this dtype.
    at = window or side
    known = [slots.relative_table(t, at).double() for t in tables]
    count = -(-side // at)
    padded = bias.double().expand(b, count * at, count * at, 3 * d).clone()
    padded[:, :side, :side] = qkv
    expected = torch.empty(b, side, side, d, dtype=torch.float64)
    for top in range(0, side, at):
        for left in range(0, side, at):
            part = padded[:, top : top + at, left : left + at].reshape(b, at * at, 3, h, width)
            got = slots.rel_pos_attention(*part.permute(2, 0, 3, 1, 4), *known)
            got = got.transpose(1, 2).reshape(b, at, at, d)
            rows, columns = min(at, side - top), min(at, side - left)
            expected[:, top : top + rows, left : left + columns] = got[:, :rows, :columns]
    close(ours, expected, dtype)
    reference = slots.sam_attention(*wide(qkv, bias, *tables), h, window)
    if len(tables[0]) == 2 * at - 1:
        torch.testing.assert_close(reference, expected)


def test_more_windows_than_one_grid_holds():
    """Then a program takes all heads: 30 pages with 6 tiles each, as a batch."""
    qkv, bias = torch.empty(180, 40, 40, 2304, device="meta"), torch.empty(2304, device="meta")
    table = torch.empty(27, 64, device="meta")
    seen: list = []
    with launch.listening(seen.append):
        window_attention.window_attention(qkv, bias, table, table, 12, 14)
    (one,) = seen
    assert dict(one.constants)["EACH"] == 12 and one.grid[2] == 1


@given(dtypes, seeds, small(1, 40), small(1, 9), small(1, 70), small(1, 50), small(1, 2), st.data())
def test_mixture(dtype, seed, n, count, d, i, shared, data):
    renormalise = data.draw(st.booleans())
    top = data.draw(small(1, min(4, count)))
    draw = numbers(seed, dtype)
    part = lambda *shape: draw(*shape, scale=shape[-1] ** -0.5)  # noqa: E731
    weights = part(count, 2 * i, d), part(count, d, i), part(2 * shared * i, d), part(d, shared * i)
    experts_ = Experts(draw(count, d), *weights, top, renormalise, 1.5)
    x = draw(n, d)
    wide_experts = Experts(*wide(experts_.gate, *weights), top, renormalise, 1.5)
    shares = F.linear(x.double(), experts_.gate.double()).softmax(-1).topk(min(top + 1, count)).values
    clear = (shares.diff(dim=-1).abs() > 1e-5).all(-1)  # no near tie: the choice is certain
    if clear.any():
        ours, expected = candidates.mixture(x, experts_), slots.mixture(x.double(), wide_experts)
        close(ours[clear], expected[clear], dtype)


@given(dtypes, seeds, small(1, 30), small(1, 9), small(1, 70), small(1, 50), st.data())
def test_experts(dtype, seed, n, count, d, i, data):
    top = data.draw(small(1, min(4, count)))
    draw = numbers(seed, dtype)
    x, gate_up, down = draw(n, d), draw(count, 2 * i, d, scale=d**-0.5), draw(count, d, i, scale=i**-0.5)
    scores = torch.rand(n, count, generator=torch.Generator().manual_seed(seed))
    weights, ids = scores.softmax(-1).topk(top)
    expected = slots.moe(*wide(x, gate_up, down), ids, weights.double())
    close(experts.few_tokens(x, gate_up, down, ids, weights), expected, dtype)
    close(grouped.many_tokens(x, gate_up, down, ids, weights), expected, dtype)
    added = draw(n, d)
    close(grouped.many_tokens(x, gate_up, down, ids, weights, added), expected + added.double(), dtype)
    shared, residual = (draw(4 * i, d, scale=d**-0.5), draw(d, 2 * i, scale=i**-0.5)), draw(n, d)
    whole = expected + F.linear(slots.swiglu(F.linear(*wide(x, shared[0]))), shared[1].double())
    close(experts.few_tokens(x, gate_up, down, ids, weights, shared, residual), whole + residual, dtype)


@given(dtypes, seeds, small(1, 3), small(16, 60), small(1, 300))
def test_products_of_few_rows(dtype, seed, n, m, d):
    draw = numbers(seed, dtype)
    x, norm, weight, residual = draw(n, d), draw(d), draw(m, d, scale=d**-0.5), draw(n, m)
    gates = draw(2 * m, d, scale=d**-0.5)
    normed = slots.rms_norm(*wide(x, norm), 1e-6)
    close(vector_products.normed_product(x, norm, 1e-6, weight), normed @ weight.double().T, dtype)
    gated = vector_products.normed_product(x, norm, 1e-6, gates, gated=True)
    close(gated, slots.swiglu(normed @ gates.double().T), dtype)
    added = vector_products.added_product(x, weight, residual)
    close(added, residual.double() + x.double() @ weight.double().T, dtype)


@given(dtypes, seeds, small(1, 4), small(1, 70), small(1, 200), st.booleans(), st.data())
def test_router(dtype, seed, n, count, d, renormalise, data):
    top = data.draw(small(1, min(6, count)))
    draw = numbers(seed, dtype)
    x, norm, gate = draw(n, d), draw(d), draw(count, d, scale=d**-0.5)
    normed, ids, weights = router.route(x, norm, 1e-6, gate, top, renormalise, 1.5)
    close(normed, slots.rms_norm(*wide(x, norm), 1e-6), dtype)
    shares = F.linear(*wide(normed, gate)).softmax(-1)
    best, chosen = shares.topk(top)
    best = best / best.sum(-1, keepdim=True) if renormalise else best
    torch.testing.assert_close(weights.double(), 1.5 * best, rtol=1e-5, atol=1e-7)
    clear = (shares.topk(top).values.diff(dim=-1).abs() > 1e-6).all(-1)  # no near tie: the order is certain
    assert torch.equal(ids[clear].long(), chosen[clear])


def test_equal_scores_give_the_first_expert():
    _, ids, _ = router.route(torch.ones(1, 8), torch.ones(8), 1e-6, torch.zeros(5, 8), 3, False, 1.0)
    assert ids.tolist() == [[0, 1, 2]]
