"""Unusual calls of the convolutions, compared with torch.nn.functional.conv2d itself."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from deskocr_kit.operators.substitutes.registry import candidates
from tests.helpers.unusual_calls import gradients, hold_to_the_rule, outcome, portable

NAMES = portable("conv2d")
torch.manual_seed(0)
r = torch.randn
X, W, B = r(2, 3, 8, 9), r(4, 3, 3, 3), r(4)
ONE, TWO = r(4, 3, 1, 1), r(4, 3, 2, 2)  # for pointwise, for patchify with stride 2
PIXEL = torch.where(X > 2, torch.inf, X)

CALLS = {
    "a tuple of one": (X, W, B, (2,), (1,)),
    "lists": (X, W, B, [2, 1], [1]),
    "a size": (X, W, B, torch.Size([2, 2]), torch.Size([1, 1])),
    "a number in a tensor": (X, W, B, torch.tensor(2), 1),
    "same": (X, W, B, 1, "same"),
    "same, even kernel": (X, r(4, 3, 2, 4), B, 1, "same", (1, 2)),
    "same, no batch": (X[0], W, B, 1, "same"),
    "same, 1x1": (X, ONE, B, 1, "same"),
    "same with a stride": (X, W, B, 2, "same"),
    "valid": (X, W, B, 2, "valid"),
    "valid patches": (X, TWO, B, 2, "valid"),
    "no such padding": (X, W, B, 1, "full"),
    "negative padding": (X, W, B, 1, -1),
    "negative padding, 1x1": (X, ONE, B, 1, -1),
    "negative padding, patches": (X, TWO, B, 2, (0, -1)),
    "stride 0": (X, W, B, 0, 1),
    "stride 0, 1x1": (X, ONE, B, 0, 0),
    "negative stride": (X, ONE, B, -1, 0),
    "dilation 0": (X, W, B, 1, 1, 0),
    "three numbers": (X, W, B, (1, 2, 3), 1),
    "no number": (X, W, B, (), 1),
    "half a stride": (X, W, B, 1.0, 1),
    "a flag for a number": (X, W, B, True, 1),
    "no groups": (X, W, B, 1, 1, 1, 0),
    "groups that do not divide": (X, r(4, 1, 3, 3), B, 1, 1, 1, 3),
    "outputs that groups do not divide": (r(2, 4, 8, 8), r(3, 2, 3, 3), None, 1, 1, 1, 2),
    "depthwise 7x7": (r(2, 6, 8, 8), r(6, 1, 7, 7), r(6), 1, 3, 1, 6),
    "depthwise, two of each": (r(2, 3, 8, 8), r(6, 1, 3, 3), None, (1, 2), 1, 2, 3),
    "no channels": (r(2, 0, 8, 9), r(4, 0, 3, 3), B, 1, 1),
    "no channels, 1x1": (r(2, 0, 8, 9), r(4, 0, 1, 1), None, 1, 0),
    "no channels, patches": (r(2, 0, 8, 8), r(4, 0, 2, 2), B, 2, 0),
    "no output channels": (X, r(0, 3, 3, 3), None, 1, 1),
    "no output channels, 1x1": (X, r(0, 3, 1, 1), None, 1, 0),
    "no output channels, patches": (X, r(0, 3, 2, 2), r(0), 2, 0),
    "no height": (r(2, 3, 0, 9), W, B, 1, 1),
    "no height, 1x1": (r(2, 3, 0, 9), ONE, B, 1, 0),
    "no height, patches": (r(2, 3, 0, 8), TWO, B, 2, 0),
    "no height but padding": (r(2, 3, 0, 9), W, B, 1, 3),
    "no width": (r(2, 3, 8, 0), ONE, B, 1, 0),
    "no kernel": (X, r(4, 3, 0, 0), B, 1, 0),
    "no batch at all": (r(0, 3, 8, 8), W, B, 1, 1),
    "no batch, patches": (r(0, 3, 8, 8), TWO, B, 2, 0),
    "no batch, 1x1": (r(0, 3, 8, 8), ONE, B, 1, 0),
    "neither batch nor channels": (r(0, 0, 8, 8), r(4, 0, 3, 3), B, 1, 1),
    "a picture of two dimensions": (r(3, 8), W, B, 1, 1),
    "a picture of five": (r(1, 1, 3, 8, 8), W, B, 1, 1),
    "a weight of three": (X, r(4, 3, 3), B, 1, 1),
    "a bias of one": (X, W, r(1), 1, 1),
    "a bias of one, 1x1": (X, ONE, r(1), 1, 0),
    "a bias of one, patches": (X, TWO, r(1), 2, 0),
    "a bias without dimension": (X, W, torch.tensor(1.0), 1, 1),
    "a bias of two dimensions": (X, TWO, r(1, 4), 2, 0),
    "a picture that is too small": (X[..., :2, :], W, B, 1, 0),
    "other channels": (X[:, :2], W, B, 1, 1),
    "whole numbers": (X.long(), W.long(), B.long(), 1, 1),
    "complex numbers": (X.cfloat(), W.cfloat(), B.cfloat(), 1, 1),
    "double": (X.double(), W.double(), B.double(), 1, 1),
    "one dtype is another": (X.double(), W, B, 1, 1),
    "a bias in another dtype": (X.half(), W.half(), B, 1, 1),
    "expanded": (r(1, 3, 1, 1).expand(2, 3, 8, 8), W, B, 1, 1),
    "expanded patches": (r(1, 3, 1, 8).expand(2, 3, 8, 8), TWO, B, 2, 0),
    "flipped": (X.flip(-1), W.flip(0), B, 2, 1),
    "channels last": (X.to(memory_format=torch.channels_last), W.to(memory_format=torch.channels_last), B),
    "every second channel": (r(2, 6, 8, 9)[:, ::2], r(4, 6, 3, 3)[:, 1::2], r(8)[::2], 2, 1),
    "infinite pixels": (PIXEL, W, B, 2, 1),
    "infinite pixels, 1x1": (PIXEL, ONE, B, 1, 0),
    "missing pixels, patches": (torch.where(X > 2, torch.nan, X), TWO, B, 2, 0),
    "shapes alone": (X.to("meta"), W.to("meta"), B.to("meta"), 2, 1),
    "shapes alone, patches": (X.to("meta"), TWO.to("meta"), B.to("meta"), 2, 0),
    "the picture elsewhere": (X.to("meta"), W, B, 1, 1),
}
if torch.__version__ < (2, 7):  # it accepts no number in a tensor; ours treat it as everywhere else
    del CALLS["a number in a tensor"]


@pytest.mark.parametrize("name", [*NAMES, "reference"])
def test_hard_calls(name):
    for call, args in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = outcome(F.conv2d, args)
        try:
            hold_to_the_rule("conv2d", name, args, expected)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from error


def test_what_is_declined_though_torch_takes_it_is_known():
    """No other calls may be declined: a candidate that declines everything would pass the test above."""
    declined = set()
    for call, args in CALLS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(outcome(F.conv2d, args), Exception):
                continue
        declined |= {
            (call, name) for name in NAMES if isinstance(outcome(candidates("conv2d")[name], args), Exception)
        }
    assert declined == {("whole numbers", "unfold_einsum")} | {("the picture elsewhere", n) for n in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_hundred_layers(name):
    draw, function = random.Random(7), candidates("conv2d")[name]
    for seed in range(25):
        torch.manual_seed(seed)
        kernel = draw.choice([(1, 1), (3, 3), (2, 2), (1, 3)])
        groups, dilation = draw.choice([(1, 1), (1, 2), (2, 1), (4, 1)])
        options = {
            "stride": draw.choice([1, 2, kernel]),
            "padding": draw.choice([0, 1, (0, 1)]),
            "dilation": dilation,
            "groups": groups,
        }
        x = torch.randn(draw.choice([0, 1, 2]), 4, 7, 8)
        args = (x, torch.randn(4, 4 // groups, *kernel), torch.randn(4) if draw.random() < 0.5 else None)
        if name == "triton" and (dilation, groups) != (1, 1):
            with pytest.raises(NotImplementedError, match="dilation"):
                function(*args, **options)
            continue
        ours, expected = gradients(function, args, options), gradients(F.conv2d, args, options)
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_where_none_is_wanted_and_none_in_inference_mode(name):
    function = candidates("conv2d")[name]
    with torch.inference_mode():
        for weight, stride in ((W, 1), (ONE, 1), (TWO, 2)):
            ours = function(X, weight, B, stride, 0)
            torch.testing.assert_close(ours, F.conv2d(X, weight, B, stride, 0), rtol=1e-4, atol=1e-4)
    assert not function(X, W, B, 1, 1).requires_grad
    assert function(X, W, B.clone().requires_grad_(), 1, 1).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_inferred_without_numbers(name):
    for x, weight, stride in ((X, W, 2), (X[0], ONE, 1), (X, TWO, 2), (X[:0], W, 1)):
        with FakeTensorMode() as mode:  # a mode for each: torch 2.6 confuses repeated use of one mode
            args = mode.from_tensor(x), mode.from_tensor(weight), None, stride, 0
            ours, expected = candidates("conv2d")[name](*args), F.conv2d(*args)
            assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)


def test_an_infinite_weight_is_torchs_product_at_the_border():
    """The zeros of the padding are multiplied: NaN, as in torch where it multiplies matrices itself."""
    weight = torch.where(W > 1, torch.inf, W).double()
    for name in NAMES:
        ours = candidates("conv2d")[name](X.double(), weight, None, 1, 1)
        torch.testing.assert_close(ours, F.conv2d(X.double(), weight, None, 1, 1), equal_nan=True)


def test_one_kind_of_call_however_it_is_written():
    from deskocr_kit.operators.substitutes.cases import case_of

    kinds = {case_of("conv2d", (X, W, B, s, p)) for s, p in ((2, 1), ((2,), [1, 1]), ([2, 2], (1,)))}
    assert kinds == {"kernel 3x3 stride 2 padding 1"}
    assert case_of("conv2d", (X, W, B, (2, 1), "same")) == "kernel 3x3 stride 2x1 padding same"
    depthwise = case_of("conv2d", (r(1, 6, 8, 8), r(6, 1, 7, 7)), {"padding": 3, "groups": 6})
    assert depthwise == "kernel 7x7 stride 1 padding 3 groups 6"
