"""The other slots: every portable substitute compared with its reference; properties of all slots."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.substitutes.cases import ANY, ByCase, case_of
from deskocr_kit.operators.substitutes.registry import SLOTS, candidate, candidates
from model import slots
from model.fast import moe as moe_file
from model.slots import Slots
from tests.helpers.golden import inputs

DTYPES = {torch.float32: 2e-6, torch.bfloat16: 1.5e-2, torch.float16: 2e-3}


def portable(slot: str) -> list[str]:
    """The candidates that this torch can run: before 2.8 there is no grouped product (see the test below)."""
    missing = {"grouped_mm"} if not hasattr(torch, "_grouped_mm") else set()
    left_out = {"reference", *missing}
    return [name for name in candidates(slot) if name not in left_out and not name.startswith("npu_")]


def wide(args):
    return [a.double() if torch.is_tensor(a) and a.is_floating_point() else a for a in args]


def cast(args, dtype):
    return [a.to(dtype) if torch.is_tensor(a) and a.is_floating_point() else a for a in args]


def error(ours, expected) -> float:
    assert ours.shape == expected.shape
    return relative_error(ours, expected)


def test_every_slot_of_the_model_has_candidates():
    assert set(vars(Slots())) <= set(SLOTS)
    for slot in SLOTS:
        found = candidates(slot)
        assert next(iter(found)) == "reference" and (len(found) >= 2 or slot in slots.SPANNING), slot
        assert all(callable(each) and each.__doc__ for each in found.values()), slot
    for slot in ("conv2d", "rms_norm", "moe"):
        assert candidates(slot)["reference"] is getattr(slots, slot)
    with pytest.raises(ValueError, match="no slot named 'conv3d'"):
        candidates("conv3d")
    with pytest.raises(ValueError, match="choose one of reference, unfold_einsum"):
        candidate("conv2d", "magic")


# ---------------------------------------------------------------------- attention
@pytest.mark.parametrize("name", portable("attention"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention(name, dtype):
    torch.manual_seed(0)
    for nq, nk, causal, masked in [
        (5, 5, True, False),
        (5, 5, False, False),
        (1, 9, False, True),
        (4, 7, True, False),
        (6, 6, False, True),
    ]:
        q, k, v = torch.randn(2, 3, nq, 8), torch.randn(2, 3, nk, 8), torch.randn(2, 3, nk, 8)
        mask = torch.rand(2, 1, nq, nk) < 0.6 if masked else None
        if masked:
            mask[..., 0] = True  # a query with every key masked has no result
        q, k, v = cast((q, k, v), dtype)
        ours = candidate("attention", name)(q, k, v, mask, causal)
        assert ours.dtype == dtype
        assert error(ours, slots.attention(*wide((q, k, v)), mask, causal)) < DTYPES[dtype]


@pytest.mark.parametrize("name", portable("rel_pos_attention"))
@pytest.mark.parametrize("dtype", DTYPES)
def test_rel_pos_attention(name, dtype, monkeypatch):
    torch.manual_seed(0)
    from model.fast import rel_pos_attention

    for s, chunk in [(3, 1 << 22), (5, 700), (4, 1)]:  # the last case: one row of the map at a time
        monkeypatch.setattr(rel_pos_attention, "CHUNK", chunk)
        qkv = torch.randn(2, s * s, 3, 2, 8).permute(2, 0, 3, 1, 4)  # not contiguous, as in the model
        args = cast((*qkv, torch.randn(s, s, 8), torch.randn(s, s, 8)), dtype)
        ours = candidate("rel_pos_attention", name)(*args)
        assert ours.dtype == dtype
        assert error(ours, slots.rel_pos_attention(*wide(args))) < DTYPES[dtype]


# ---------------------------------------------------------------------- mixture of experts
@pytest.mark.parametrize("name", portable("moe"))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_moe(name, dtype, tokens):
    torch.manual_seed(tokens)
    experts, top, d, i = 9, 3, 16, 24
    ids = torch.stack([torch.randperm(experts - 2)[:top] for _ in range(tokens)])  # two experts get no token
    args = (torch.randn(tokens, d), torch.randn(experts, 2 * i, d) / 4, torch.randn(experts, d, i) / 5)
    args, weights = cast(args, dtype), torch.rand(tokens, top)
    ours = candidate("moe", name)(*args, ids, weights)
    assert ours.dtype == dtype
    assert error(ours, slots.moe(*cast(args, torch.float32), ids, weights)) < DTYPES[dtype]


def test_moe_without_a_grouped_product_says_so(monkeypatch):
    monkeypatch.delattr(torch, "_grouped_mm", raising=False)
    with pytest.raises(NotImplementedError, match="needs torch 2.8"):
        moe_file.grouped_mm(
            torch.ones(1, 16),
            torch.ones(2, 16, 16),
            torch.ones(2, 16, 8),
            torch.zeros(1, 1, dtype=torch.long),
            torch.ones(1, 1),
        )


# ---------------------------------------------------------------------- norm, rotation, activations
@pytest.mark.parametrize(
    ("slot", "make"),
    [
        ("rms_norm", lambda: (torch.randn(2, 3, 32) * 3, torch.rand(32) + 0.5, 1e-6)),
        (
            "rotary",
            lambda: (torch.randn(2, 3, 4, 8), *(torch.randn(2, 1, 4, 4).repeat(1, 1, 1, 2) for _ in "cs")),
        ),
        ("swiglu", lambda: (torch.randn(2, 3, 32) * 3,)),
        ("gelu", lambda: (torch.randn(200) * 3,)),
        ("quick_gelu", lambda: (torch.randn(200) * 3,)),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pointwise(slot, make, dtype):
    torch.manual_seed(0)
    args = cast(make(), dtype)
    before = [a.clone() if torch.is_tensor(a) else a for a in args]
    for name in portable(slot):
        ours = candidate(slot, name)(*args)
        assert ours.dtype == dtype
        assert error(ours, getattr(slots, slot)(*wide(args))) < DTYPES[dtype], name
        assert all(not torch.is_tensor(a) or torch.equal(a, b) for a, b in zip(args, before, strict=True))


def test_gelu_erf_is_not_the_tanh_form():
    x = torch.linspace(-4, 4, 400)
    tanh = torch.nn.functional.gelu(x, approximate="tanh")
    assert (
        (candidate("gelu", "gelu_erf")(x) - slots.gelu(x)).abs().max()
        < 1e-6
        < (tanh - slots.gelu(x)).abs().max()
    )


# ---------------------------------------------------------------------- position tables
@pytest.mark.parametrize(
    ("slot", "name", "table", "sides"),
    [
        ("resize_grid", "cached_grid", (1, 8, 8, 6), (6, 5, 10)),
        ("relative_table", "cached_relative_table", (15, 4), (8, 5, 10)),
    ],
)
def test_tables_are_made_once_and_made_anew_when_they_change(slot, name, table, sides, monkeypatch):
    from model.fast import position_tables

    made = []
    real = getattr(slots, slot)

    def counted(table, side):
        made.append(side)
        return real(table, side)

    counted.__name__ = slot
    monkeypatch.setattr(position_tables, slot, counted)
    once = candidate(slot, name)
    parameter = torch.nn.Parameter(torch.randn(table), requires_grad=False)
    for _ in range(3):
        for side in sides:
            assert torch.equal(once(parameter, side), real(parameter, side))
    assert made == list(sides)
    with torch.no_grad():
        parameter.mul_(2)
    assert torch.equal(once(parameter, 5), real(parameter, 5)) and len(made) == 4
    other = torch.nn.Parameter(torch.randn(table), requires_grad=False)
    assert torch.equal(once(other, 5), real(other, 5)) and len(made) == 5
    view = parameter.data[..., :2]
    assert torch.equal(once(view, 5), real(view, 5))


def test_a_table_that_learns_is_never_kept():
    table = torch.nn.Parameter(torch.randn(15, 4))
    once = candidate("relative_table", "cached_relative_table")
    once(table, 5).sum().backward()
    assert table.grad is not None and once(table, 5).requires_grad


# ---------------------------------------------------------------------- names
def test_an_implementation_has_the_name_of_its_function():
    for slot in SLOTS:
        for name, implementation in candidates(slot).items():
            if implementation.__module__.startswith("deskocr_kit."):
                assert implementation.__name__ == name, slot


# ---------------------------------------------------------------------- kinds of calls
def test_cases():
    x, w = torch.zeros(1, 3, 32, 32), torch.zeros(4, 3, 16, 16)
    assert case_of("conv2d", (x, w, None, 16, 0)) == "kernel 16x16 stride 16 padding 0"
    assert case_of("conv2d", (x, w), {"stride": (16, 16)}) == "kernel 16x16 stride 16 padding 0"
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 9, 4)
    assert (
        case_of("attention", (q, k, k)) == "one query"
        and case_of("attention", (k, k, k, None, True)) == "causal"
    )
    assert case_of("attention", (k, k, k, torch.ones(9, 9).bool())) == "full, masked"
    assert [case_of("moe", (torch.zeros(n, 2),)) for n in (1, 8, 9)] == [
        "one token",
        "few tokens",
        "many tokens",
    ]
    assert case_of("gelu", (x,)) == ANY


def test_by_case_hands_each_call_to_its_choice():
    said = []
    pick = lambda name: lambda *args: said.append(name)  # noqa: E731
    functions = {"one token": pick("gathered"), ANY: pick("grouped")}
    by_case = ByCase("moe", {"one token": "gathered", ANY: "grouped"}, functions)
    by_case(torch.zeros(1, 2))
    by_case(torch.zeros(5, 2))
    assert said == ["gathered", "grouped"] and repr(by_case) == "moe: one token: gathered, *: grouped"
    with pytest.raises(ValueError, match="any other case"):
        ByCase("moe", {}, {"one token": pick("x")})


# ---------------------------------------------------------------------- in the model
def test_the_network_calls_every_slot(golden_model):
    """Else the next test would pass for a slot that the network never reads."""
    called = set()

    def listening(slot, function):
        return lambda *args, **kwargs: called.add(slot) or function(*args, **kwargs)

    every = {slot: listening(slot, f) for slot, f in vars(slots.Slots()).items()}
    try:
        for plan in ({slot: f for slot, f in every.items() if slot not in slots.SPANNING}, every):
            golden_model.use_plan(plan)
            with torch.no_grad():
                golden_model.generate(**inputs("g640"), max_new_tokens=2)
    finally:
        golden_model.use_plan(vars(slots.Slots()))
    assert called == set(vars(slots.Slots()))


def test_the_golden_model_with_every_portable_substitute(golden_model):
    """None of them changes the result of the network."""
    from model.slots import Slots

    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 128, 128)
    ids = torch.randint(3, 100, (1, 9))
    mask = torch.zeros(1, 9, dtype=torch.bool)
    mask[0, 1:8] = True  # 2 x 3 vectors and the separator
    call = lambda: golden_model(ids, [(pixels[:0], pixels)], mask, [[1, 1]]).logits  # noqa: E731
    with torch.no_grad():
        expected = call()
        try:
            for slot in vars(Slots()):
                for name in portable(slot):
                    golden_model.use_plan({slot: candidate(slot, name)})
                    assert (call() - expected).abs().max() < 2e-4, (slot, name)  # logits of size 5
                    golden_model.use_plan({slot: candidate(slot, "reference")})
        finally:
            golden_model.use_plan(vars(Slots()))
