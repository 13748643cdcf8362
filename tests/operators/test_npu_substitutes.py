"""NPU substitutes without an NPU: their calls fit the published schemas, are correct, and are checked.

The operators are replacements (helpers/npu_double.py): the tests prove the calls, not the card. For the real
wheel under FakeTensor see tests/real_wheel/test_real_wheel.py.
"""

from __future__ import annotations

import warnings

import pytest
import torch

from deskocr_kit.operators.substitutes import npu
from deskocr_kit.operators.substitutes.registry import candidates
from deskocr_kit.operators.substitutes.self_check import (
    NeedsTorchNpu,
    SelfCheckError,
    SelfCheckWarning,
    kind_of,
)
from model import slots
from tests.helpers import npu_double

PAIRS = [(slot, name) for slot, found in npu.CANDIDATES.items() for name in found]


def inputs(slot: str, dtype=torch.float16) -> list[tuple]:
    """Small calls with the arguments that the model uses."""
    torch.manual_seed(0)
    r = lambda *shape: torch.randn(shape).to(dtype)  # noqa: E731
    ids = torch.tensor([[0, 3], [3, 1], [2, 3]])
    return {
        "rms_norm": [(r(1, 3, 32), r(32), 1e-6)],
        "rotary": [(r(2, 3, 4, 16), r(2, 1, 4, 8).repeat(1, 1, 1, 2), r(2, 1, 4, 8).repeat(1, 1, 1, 2))],
        "swiglu": [(r(3, 32),)],
        "gelu": [(r(3, 32),)],
        "attention": [
            (r(1, 2, 5, 16), r(1, 2, 5, 16), r(1, 2, 5, 16), None, True),
            (r(2, 2, 5, 16), r(2, 2, 5, 16), r(2, 2, 5, 16)),
            (r(1, 2, 1, 16), r(1, 2, 600, 16), r(1, 2, 600, 16), None, False),
            (r(2, 2, 1, 16), r(2, 2, 600, 16), r(2, 2, 600, 16), torch.rand(2, 1, 1, 600) < 0.5),
            (r(1, 2, 4, 16), r(1, 2, 4, 16), r(1, 2, 4, 16), torch.ones(1, 1, 4, 4).tril().bool()),
        ],
        "rel_pos_attention": [(r(2, 3, 16, 8), r(2, 3, 16, 8), r(2, 3, 16, 8), r(4, 4, 8), r(4, 4, 8))],
        "moe": [
            (r(n, 16), r(5, 24, 16) / 4, r(5, 16, 12) / 4, ids[:n], torch.rand(n, 2))
            for n in (3, 1)  # more pairs than experts, and fewer
        ],
    }[slot]


@pytest.mark.parametrize(("slot", "name"), PAIRS)
def test_calls_fit_the_wheels_and_mean_the_reference(slot, name):
    with npu_double.installed():
        for args in inputs(slot):
            ours = npu.CANDIDATES[slot][name].unchecked(*args)
            expected = getattr(slots, slot)(
                *(a.float() if torch.is_tensor(a) and a.is_floating_point() else a for a in args)
            )
            error = (ours.float() - expected).norm() / expected.norm()
            assert ours.shape == expected.shape and ours.dtype == torch.float16 and error < 2e-3, args[
                0
            ].shape
        assert npu_double.called, "no operator of torch_npu was called"


def test_the_binder_refuses_what_torch_would():
    x = torch.ones(2, 4)
    for args, kwargs in [
        ((x,), {}), ((x, x, 1e-6, 1), {}), ((x, x), {"eps": 1e-6}), ((x, 2.0), {}), ((x, x), {"gamma": x}),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match="npu_rms_norm"):
            npu_double.check_call("npu_rms_norm", args, kwargs)
    npu_double.check_call("npu_rms_norm", (x, x), {"epsilon": 1e-5})
    with pytest.raises(TypeError, match="no such operator"):
        npu_double.check_call("npu_rms_norm_x", (), {})


@pytest.mark.parametrize(("slot", "name"), PAIRS)
def test_without_torch_npu_it_says_so(slot, name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_npu", None)  # makes the import fail anywhere
    with pytest.raises(NeedsTorchNpu, match="torch_npu, which cannot be imported here"):
        candidates(slot)[name](*inputs(slot)[0])


# ---------------------------------------------------------------------- the check on first use
def watched(slot: str, name: str):
    """A new self-check, because verdicts are kept per process."""
    return npu.self_checked(npu.CANDIDATES[slot][name].unchecked, getattr(slots, slot), name)


def test_a_sound_operator_is_checked_once_per_kind(monkeypatch):
    function, (x, w, eps) = watched("rms_norm", "npu_rms_norm"), inputs("rms_norm")[0]
    with npu_double.installed(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            function(x, w, eps)
        function(x[:, :1], w, eps)  # 1 token is another kind of call than 3
        function(x.float(), w.float(), eps)
    assert len(function.verdicts) == 3 and set(function.verdicts.values()) == {""}


FAULTS = {
    "a wrong formula": ("gelu", "npu_gelu", lambda x, approximate: x * torch.sigmoid(1.702 * x)),
    "not a number": ("swiglu", "npu_swiglu", lambda x, dim: x[..., ::2] * torch.nan),
    "a uniform average": (
        "attention", "npu_fusion_attention",
        lambda q, k, v, *_, **__: (v.mean(2, keepdim=True).expand(*q.shape[:-1], v.shape[-1]),),
    ),
    "another shape": ("swiglu", "npu_swiglu", lambda x, dim: x),
    "an error": ("gelu", "npu_gelu", lambda x, approximate: (_ for _ in ()).throw(RuntimeError("561103"))),
}  # fmt: skip


@pytest.mark.parametrize(("slot", "name", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_operator_is_replaced_and_named(slot, name, fault, monkeypatch):
    args = inputs(slot)[0]
    with npu_double.installed(**{name: fault}):
        function = watched(slot, name)
        with pytest.warns(SelfCheckWarning, match=name):
            first = function(*args)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # one warning only
            second = function(*args)
        expected = getattr(slots, slot)(*args)
        assert torch.equal(first, expected) and torch.equal(second, expected)
        monkeypatch.setenv("DESKOCR_STRICT", "1")
        with pytest.raises(SelfCheckError, match=name):
            watched(slot, name)(*args)


def test_the_mask_that_is_ignored_past_512_keys_would_be_caught():
    """Our code never passes a mask to the decoding operator; the check would notice one from 513 keys on."""

    def naive(q, k, v, mask=None, causal=False):
        return npu.operator("npu_fused_infer_attention_score")(
            q, k, v, num_heads=q.shape[1], scale=q.shape[-1] ** -0.5, input_layout="BNSD", atten_mask=~mask
        )[0]

    function = npu.self_checked(naive, slots.attention, "naive decoding")
    torch.manual_seed(0)
    for keys, warned in ((400, False), (600, True)):
        q, k, v = torch.randn(1, 2, 1, 16), torch.randn(1, 2, keys, 16), torch.randn(1, 2, keys, 16)
        mask = torch.rand(1, 1, 1, keys) < 0.5
        with npu_double.installed(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            out = function(q, k, v, mask)
        assert bool(said) == warned
        torch.testing.assert_close(out, slots.attention(q, k, v, mask), atol=1e-5, rtol=1e-4)


def test_the_decoding_operator_gets_the_cache_and_not_a_copy():
    cache = torch.randn(2, 3, 2, 9, 16)  # keys and values, b h length k
    given = []

    def seen(q, k, v, **rest):
        given.append((k.data_ptr(), v.data_ptr()))
        return npu_double.npu_fused_infer_attention_score(q, k, v, **rest)

    q, (k, v) = torch.randn(3, 2, 1, 16), cache[:, :, :, :5]
    with npu_double.installed(npu_fused_infer_attention_score=seen):
        out = npu.npu_fused_infer_attention_score(q, k, v)
        torch.testing.assert_close(out, slots.attention(q, k, v), atol=1e-5, rtol=1e-4)
        assert given == [(k.data_ptr(), v.data_ptr())]
        turned = torch.randn(3, 5, 2, 16).transpose(1, 2)  # no cache: copied, and correct
        torch.testing.assert_close(
            npu.npu_fused_infer_attention_score(q, turned, v),
            slots.attention(q, turned, v),
            atol=1e-5,
            rtol=1e-4,
        )
    assert npu.allocated(v[:, :, 4:]).shape == (3, 2, 1, 16)  # the memory has no room for 9 more: a copy


def test_shapes_alone_are_not_checked():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert kind_of((torch.empty(2, 2),), {}) is None
    assert kind_of((torch.empty(2, 2, device="meta"),), {}) is None
    assert kind_of((torch.empty(2, 2), None, True), {}) != kind_of((torch.empty(2, 2), None, False), {})
    assert kind_of((torch.empty(2, 100),), {}) == kind_of((torch.empty(2, 127),), {})
