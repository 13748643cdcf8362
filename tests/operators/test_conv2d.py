"""Every convolution substitute compared with torch, on the five layers of the model and on other shapes."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.substitutes.conv_call import output_size
from deskocr_kit.operators.substitutes.mismatch import Mismatch
from deskocr_kit.operators.substitutes.registry import candidates

NAMES = [name for name in candidates("conv2d") if name != "reference"]
# kernel, stride, padding, c_in, c_out of the model's layers (channels made small)
LAYERS = [(16, 16, 0, 3, 12), (1, 1, 0, 12, 8), (3, 1, 1, 8, 8), (3, 2, 1, 8, 16), (14, 14, 0, 3, 10)]


def far(ours: torch.Tensor, expected: torch.Tensor) -> float:
    assert ours.shape == expected.shape and ours.dtype == expected.dtype
    return relative_error(ours, expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"k{layer[0]}s{layer[1]}p{layer[2]}")
@pytest.mark.parametrize(
    ("dtype", "budget"), [(torch.float32, 1e-6), (torch.bfloat16, 6e-3), (torch.float16, 1e-3)]
)
def test_layers_of_the_model(name, layer, dtype, budget):
    kernel, stride, padding, c_in, c_out = layer
    side = max(32, 3 * kernel)
    g = torch.Generator().manual_seed(kernel + stride)
    x, weight = (
        torch.randn(2, c_in, side, side, generator=g),
        torch.randn(c_out, c_in, kernel, kernel, generator=g),
    )
    bias = torch.randn(c_out, generator=g)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding).to(dtype)
    assert far(candidates("conv2d")[name](x, weight, bias, stride, padding), expected) < budget


@pytest.mark.parametrize("name", NAMES)
def test_a_hundred_others(name):
    """Odd sizes, rectangles, tuples, no batch, empty batch, channels last, slices, dilation, groups."""
    draw, function = random.Random(0), candidates("conv2d")[name]
    for seed in range(100):
        torch.manual_seed(seed)
        kh, kw = draw.choice([(1, 1), (3, 3), (2, 2), (2, 3), (5, 1)])
        stride = draw.choice([1, 2, (2, 1), (kh, kw), kh])
        padding = draw.choice([0, 1, (0, 2)])
        dilation, groups = draw.choice([(1, 1), (1, 1), (2, 1), (1, 2), ((1, 2), 2)])
        c_in, c_out = 4, draw.choice([2, 6])
        x = torch.randn(draw.choice([0, 1, 3]), c_in, draw.randint(9, 14), draw.randint(9, 14))
        weight = torch.randn(c_out, c_in // groups, kh, kw)
        bias = torch.randn(c_out) if draw.random() < 0.5 else None
        how = draw.choice(["as it is", "channels last", "slice", "no batch", "strided weight"])
        if how == "channels last":
            x = x.contiguous(memory_format=torch.channels_last)
        elif how == "slice":
            x = torch.randn(x.shape[0], 2 * c_in, *x.shape[2:])[:, ::2].transpose(2, 3)
        elif how == "no batch" and len(x):
            x = x[0]
        elif how == "strided weight":
            weight = torch.randn(kh, kw, c_in // groups, c_out).permute(3, 2, 0, 1)
        before = x.clone(), weight.clone()
        expected = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
        if name == "triton" and (dilation, groups) != (1, 1):
            with pytest.raises(NotImplementedError, match="dilation"):
                function(x, weight, bias, stride, padding, dilation=dilation, groups=groups)
            continue
        ours = function(x, weight, bias, stride, padding, dilation=dilation, groups=groups)
        assert far(ours, expected) < 1e-5, (seed, how)
        assert torch.equal(x, before[0]) and torch.equal(weight, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_do_not_fit_are_named(name):
    function = candidates("conv2d")[name]
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with pytest.raises(Mismatch, match="x float32, weight bfloat16"):
        function(x, weight.bfloat16(), None, 1, 1)
    with pytest.raises(RuntimeError, match="x float16, weight float16, bias float32"):
        function(x.half(), weight.half(), torch.zeros(4), 1, 1)
    with pytest.raises(ValueError, match="expects 3 channels"):
        function(x[:, :2], weight, None, 1, 1)
    with pytest.raises(Mismatch, match="3x3 does not fit an image of 2x2"):
        function(x[..., :2, :2], weight, None, 1, 0)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_flow(name):
    x, weight = torch.randn(1, 3, 6, 6, requires_grad=True), torch.randn(2, 3, 3, 3, requires_grad=True)
    ours = torch.autograd.grad(candidates("conv2d")[name](x, weight, None, 2, 1).square().sum(), (x, weight))
    expected = torch.autograd.grad(F.conv2d(x, weight, None, 2, 1).square().sum(), (x, weight))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_autocast_is_left_to_autocast(name):
    x, weight, bias = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3), torch.randn(4)
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = candidates("conv2d")[name](x, weight, bias, 1, 1), F.conv2d(x, weight, bias, 1, 1)
    assert far(ours, expected) < 1e-2


def test_the_dilation_trap_is_real():
    """The behaviour of `F.unfold(x, k, padding, stride)` on which the warning in the course depends."""
    x = torch.randn(1, 1, 8, 8)
    right = F.unfold(x, kernel_size=3, padding=1, stride=1)
    assert torch.equal(F.unfold(x, 3, 1, 1), right)  # right by chance: both numbers are 1, twice
    assert F.unfold(x, 3, 1, 2).shape[-1] == 100  # instead of 16 windows
    assert F.unfold(x, kernel_size=3, padding=1, stride=2).shape[-1] == 16
    with pytest.raises(RuntimeError, match="dilation"):
        F.unfold(x, 3, 0, 1)


def test_output_size_is_torchs():
    for side, kernel, stride, padding, dilation in [(8, 3, 2, 1, 1), (17, 3, 1, 0, 2), (16, 16, 16, 0, 1)]:
        x, weight = torch.zeros(1, 1, side, side + 1), torch.zeros(1, 1, kernel, kernel)
        expected = F.conv2d(x, weight, None, stride, padding, dilation).shape[-2:]
        assert output_size(x, weight, stride, padding, dilation) == tuple(expected)
