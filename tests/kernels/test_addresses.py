"""The check that tests/kernels/conftest.py makes of every kernel notices a wrong one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deskocr_kit.operators.kernels.language import tl, triton
from deskocr_kit.operators.kernels.launch import launch
from tests.helpers.kernel_addresses import before_their_mask, outside_accesses


@triton.jit
def shifted_kernel(x, out, numbers, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    here = (at > 0) & (at < numbers)
    before = tl.load(x + at - 1, mask=here, other=0.0)
    tl.store(out + at, before, mask=at < numbers)


@triton.jit
def kept_kernel(x, out, numbers, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    here = (at > 0) & (at < numbers)
    before = tl.load(x + tl.where(here, at - 1, 0), mask=here, other=0.0)
    tl.store(out + at, before, mask=at < numbers)


@triton.jit
def long_kernel(x, out, numbers, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    number = tl.load(x + at, mask=at < numbers, other=0.0)
    tl.store(out + at, number)


LOAD = "tl.load(x + at - 1, mask=here, other=0.0)"


@pytest.mark.parametrize(("kernel", "outside"), [(shifted_kernel, {LOAD}), (kept_kernel, set())])
def test_an_address_before_the_tensor_is_noticed_though_it_is_masked(kernel, outside):
    x, out = torch.arange(1.0, 6.0), torch.empty(5)
    with outside_accesses({LOAD}) as found:
        launch(kernel, (1,), x, out, 5, BLOCK=8)
    assert out.tolist() == [0, 1, 2, 3, 4] and found == outside


def test_a_load_that_is_not_checked_is_not_judged():
    with outside_accesses(set()) as found:
        launch(shifted_kernel, (1,), torch.ones(5), torch.empty(5), 5, BLOCK=8)
    assert not found


def test_the_record_has_loads_to_check():
    assert any("place" in each for each in before_their_mask())  # those of conv2d lie outside of the image


def test_a_store_behind_the_tensor_is_noticed():
    memory = np.zeros(8, dtype=np.float32)
    out = torch.from_numpy(memory[:5])  # its storage ends there, and what lies behind is ours
    with outside_accesses(set()) as found:
        launch(long_kernel, (1,), torch.ones(5), out, 5, BLOCK=8)
    (line,) = found
    assert line == "tl.store(out + at, number)"
