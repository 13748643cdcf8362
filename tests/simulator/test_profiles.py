"""Profiles remove operators: the kinds of failures, their counts, and the allowed contents of a profile."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit import simulator
from deskocr_kit.ascend.errors import explain_exception
from deskocr_kit.simulator import profile_generator

NPU = torch.device("npu:0")


@pytest.fixture
def x():
    return torch.arange(6.0, device=NPU)


def blocked(kind: str, *operators: str) -> dict:
    return {"name": "test", "block": dict.fromkeys(operators, kind)}


REFUSALS = {
    "not-in-libopapi": (RuntimeError, "aclnnExp or aclnnExpGetWorkspaceSize not in libopapi.so"),
    "call-failed": (
        RuntimeError,
        r"call aclnnExp failed, error code is 561103(.|\n)*ERR00100 PTA call acl "
        "api failed",
    ),
    "not-implemented": (
        NotImplementedError,
        "Could not run 'aten::exp' with arguments from the 'npu' backend",
    ),
}


@pytest.mark.parametrize(("kind", "expected"), REFUSALS.items(), ids=REFUSALS)
def test_refusals(x, kind, expected):
    error, text = expected
    with simulator.using(blocked(kind, "aten::exp")), simulator.record() as r:
        with pytest.raises(error, match=text) as caught:
            x.exp()
        assert "simulated" in str(caught.value) and "test_profiles.py" in str(caught.value)
        assert caught.value.operator == "aten::exp" and type(caught.value) is error
        (x + 1).log()  # other operators work
    assert r.refused == 1 and r.by_operator("refused") == {"aten::exp": 1} and r.launches == 2
    assert x.exp().sum().item() > 0  # exp too, without the profile


def test_the_kit_knows_the_texts(x):
    """The kit's error table explains each refusal, and does not only repeat the message."""
    for kind in ("not-in-libopapi", "call-failed"):
        with simulator.using(blocked(kind, "aten::exp")), pytest.raises(RuntimeError) as caught:
            x.exp()
        assert len(explain_exception(caught.value).splitlines()) > 1, kind


def test_cpu_fallback_warns_once_computes_and_counts(x):
    with simulator.using(blocked("cpu-fallback", "aten::atan2")), simulator.record() as r:
        with pytest.warns(UserWarning) as caught:
            y = torch.atan2(x, x + 1)
            torch.atan2(x, x)
        assert y.device == NPU
    assert torch.equal(y.cpu(), torch.atan2(torch.arange(6.0), torch.arange(6.0) + 1))
    assert [str(w.message) for w in caught] == [
        "CAUTION: The operator 'aten::atan2' is not currently supported on the NPU backend and will fall "
        "back to "
        "run on the CPU. This may have performance implications. (function npu_cpu_fallback)"
    ]
    assert caught[0].filename == __file__
    assert (r.fallbacks, r.syncs, r.launches) == (2, 2, 1)  # the launch is x + 1
    assert (r.d2h_copies, r.d2h_bytes, r.h2d_copies, r.h2d_bytes) == (4, 96, 2, 48)


def test_cpu_fallback_writes_in_place(x):
    with (
        simulator.using(blocked("cpu-fallback", "aten::masked_scatter_")),
        warnings.catch_warnings(record=True),
    ):
        x.view(2, 3)[1].masked_scatter_(torch.ones(3, dtype=torch.bool, device=NPU), x[:3] + 10)
    assert x.tolist() == [0, 1, 2, 10, 11, 12]


def test_cpu_fallback_cannot_resize_a_result(x):
    """The published documentation names this pitfall of out= arguments."""
    with simulator.using(blocked("cpu-fallback", "aten::atan2.out")), warnings.catch_warnings(record=True):
        out = torch.empty(6, device=NPU)
        torch.atan2(x, x + 1, out=out)
        assert torch.equal(out.cpu(), torch.atan2(x.cpu(), x.cpu() + 1))
        with pytest.raises(RuntimeError, match="_copy_from_and_resize now only support copy with same size"):
            torch.atan2(x, x, out=torch.empty(0, device=NPU))


def test_cpu_fallback_may_be_disabled(x, monkeypatch):
    monkeypatch.setenv("TORCH_NPU_FALLBACK_CPU_DISABLE", "1")
    with (
        simulator.using(blocked("cpu-fallback", "aten::exp")),
        pytest.raises(RuntimeError, match="CPU fallback is disabled by TORCH_NPU_FALLBACK_CPU_DISABLE=1"),
    ):
        x.exp()


@pytest.mark.parametrize(
    ("operator", "call"),
    [
        (
            "aten::convolution",
            lambda x: F.conv1d(x.view(1, 1, 6), x[:2].view(1, 1, 2)),
        ),  # composite below autograd
        (
            "aten::conv1d",
            lambda x: F.conv1d(x.view(1, 1, 6), x[:2].view(1, 1, 2)),
        ),  # composite above autograd
        ("aten::linear", lambda x: F.linear(x, x.view(1, 6))),
        ("aten::matmul", lambda x: x.view(2, 3) @ x.view(3, 2)),
        (
            "aten::scaled_dot_product_attention",
            lambda x: F.scaled_dot_product_attention(*[x.view(1, 2, 3)] * 3),
        ),
        ("aten::slice_scatter", lambda x: x.slice_scatter(x[:2], 0, 0, 2)),
        ("aten::sort.*", lambda x: x.sort()),
    ],
)
def test_any_operator_can_be_taken_away(x, operator, call):
    expected = call(x)
    with simulator.using(blocked("not-implemented", operator)), pytest.raises(NotImplementedError):
        call(x)
    torch.testing.assert_close(call(x), expected)


def test_an_allow_list(x):
    profile = {"name": "few", "allow": ["aten::add.Tensor", "aten::mul.*"], "missing": "call-failed"}
    with simulator.using(profile):
        assert ((x + 1) * 2).view(2, 3)[1].cpu().tolist() == [8, 10, 12]  # views and copies always work
        with pytest.raises(RuntimeError, match="aclnnSub failed"):
            x - 1


def test_rules_by_dtype(x):
    rules = [
        {
            "operators": ["aten::cumsum"],
            "when": {"dtypes": ["int64"]},
            "then": "ai-cpu",
            "warning": "slow cumsum",
        },
        {"operators": ["aten::exp"], "when": {"dtypes_other_than": ["float32"]}, "then": "call-failed"},
    ]
    with simulator.using({"name": "typed", "rules": rules}), simulator.record() as r:
        x.cumsum(0)
        with pytest.warns(UserWarning, match="slow cumsum"):
            assert x.long().cumsum(0)[-1].item() == 15
        x.exp()
        with pytest.raises(RuntimeError, match="aclnnExp failed"):
            x.half().exp()
    assert r.by_operator("ai-cpu") == {"aten::cumsum": 1} and r.refused == 1


# ---------------------------------------------------------------------- the profiles that come with the kit
def test_as_published_masked_scatter_with_a_broadcast_mask_runs_on_the_ai_cpu():
    rows, mask = (
        torch.zeros(4, 3, device=NPU),
        torch.tensor([[1], [0], [1], [0]], dtype=torch.bool, device=NPU),
    )
    with simulator.using("as-published"), simulator.record() as r:
        rows.masked_scatter_(mask, torch.ones(6, device=NPU))
        assert r.by_operator("ai-cpu") == {"aten::masked_scatter_": 1}
        rows.masked_scatter_(mask.expand_as(rows).contiguous(), torch.ones(6, device=NPU))
    assert r.ai_cpu == 1 and r.fallbacks == 0 and r.refused == 0 and rows.sum().item() == 6


@pytest.mark.parametrize("name", ["as-published", "as-published-2.6.0"])
def test_as_published_falls_back_where_the_wheel_does(x, name):
    with simulator.using(name), warnings.catch_warnings(record=True) as caught, simulator.record() as r:
        warnings.simplefilter("always")
        x.mode()
        torch.fmax(x, x)  # decomposes into the out= form, which has no kernel
        x.softmax(0)
        F.conv1d(x.view(1, 1, 6), x[:2].view(1, 1, 2))
        x.long().argsort()
    assert r.by_operator("fallback") == {"aten::mode": 1, "aten::fmax.out": 1}
    assert r.by_operator("ai-cpu") == {"aten::argsort": 1}
    texts = [str(w.message) for w in caught]
    assert len(texts) == 3 and "ArgSort" in texts[2]


def test_the_two_wheels_differ():
    old, new = simulator.load("as-published-2.6.0"), simulator.load("as-published")
    assert old.kind_of("aten::gelu.out") == "cpu-fallback" and new.kind_of("aten::gelu.out") is None
    assert old.out_of_memory == "runtime" and new.out_of_memory == "torch"


@pytest.mark.parametrize("name", ["as-published", "as-published-2.6.0"])
def test_the_published_profiles_are_those_of_the_tables(name):
    profile, table = simulator.load(name), profile_generator.read_table(profile_generator.WHEELS[name][0])
    for operator in profile_generator.fallbacks(table):
        assert profile.kind_of(operator) == "cpu-fallback"
    for operator, row in table.items():
        if row["PrivateUse1"] == "1":
            assert profile.kind_of(operator) is None, operator
    for shown in profile.via.values():
        assert table[shown]["verdict"].startswith("no NPU kernel")


def test_as_believed_has_neither_of_the_two(x):
    with simulator.using("as-believed"):
        with pytest.raises(NotImplementedError, match="aten::convolution"):
            F.conv2d(x.view(1, 1, 2, 3), x.view(1, 1, 2, 3))
        with pytest.raises(NotImplementedError, match="aten::masked_scatter_"):
            x.masked_scatter_(x > 2, x)
        with pytest.raises(NotImplementedError, match="aten::masked_scatter_"):
            x.masked_scatter(x > 2, x)
        assert F.unfold(x.view(1, 1, 2, 3), 2).shape == (1, 4, 2)  # the operators that substitutes use


def test_a_profile_from_a_file_and_back(x, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"name": "mine", "device": {"name": "Ascend310P", "count": 2, "memory_gib": 24}})
    )
    before = simulator.profile().name
    with simulator.using(path) as profile:
        assert profile.name == "mine" and torch.npu.device_count() == 2
        assert (
            torch.npu.get_device_name() == "Ascend310P (simulated)"
            and torch.npu.mem_get_info()[1] == 24 << 30
        )
    assert simulator.profile().name == before and torch.npu.device_count() == 1


BAD = {
    "no name": ({}, '"name" is missing'),
    "typo": ({"name": "a", "blok": []}, "unknown entry 'blok'"),
    "dtype of the command line": (
        {"name": "a", "rules": [{"operators": ["aten::mm"], "when": {"dtypes": ["fp32"]}, "then": "ai-cpu"}]},
        r"rules\[0\]: when: dtype.*'fp32'",
    ),
    "kind": ({"name": "a", "block": {"aten::exp": "explode"}}, "'explode' is not one of cpu-fallback"),
    "both": ({"name": "a", "block": [], "allow": []}, "not both"),
    "operator": ({"name": "a", "block": ["exp"]}, "'exp' is not an operator name"),
    "rule": (
        {"name": "a", "rules": [{"operators": ["aten::exp"], "then": "maybe"}]},
        r"rules\[0\]: then: "
        "'maybe'",
    ),
    "count": ({"name": "a", "device": {"count": 0}}, "from 1 to 16"),
    "half": ({"name": "a", "half": "double"}, "half: 'double'"),
    "list": ([], "a profile is an object"),
}


@pytest.mark.parametrize(("data", "text"), BAD.values(), ids=BAD)
def test_a_bad_profile_says_what_is_wrong(tmp_path, data, text):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    before = simulator.profile().name
    with pytest.raises(simulator.ProfileError, match=text) as caught:
        simulator.use(path)
    assert str(path) in str(caught.value) and simulator.profile().name == before


def test_an_unknown_profile_lists_the_known_ones(tmp_path):
    with pytest.raises(
        simulator.ProfileError, match="no profile 'nope': use one of all, as-believed, as-published"
    ):
        simulator.use("nope")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(simulator.ProfileError, match="not JSON"):
        simulator.use(broken)
