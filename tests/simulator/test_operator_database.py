"""PyTorch's operator database (OpInfo): every operator and its sample inputs, on the device and the CPU."""

from __future__ import annotations

import sys
import types
import unittest

import pytest
import torch

if "expecttest" not in sys.modules:  # torch's test helpers import it for a base class that is not used here
    sys.modules["expecttest"] = types.ModuleType("expecttest")
    sys.modules["expecttest"].TestCase = unittest.TestCase

from torch.testing._internal.common_methods_invocations import op_db

NPU = torch.device("npu:0")

#: Not available on such a device, or not comparable between two runs (random or uninitialised results).
SKIPPED = [
    *("sparse", "to_sparse", "empty", "new_empty", "nonzero_static", "jiterator"),
    *("rand", "normal", "bernoulli", "multinomial", "dropout", "alpha_dropout", "rrelu"),
    *("uniform", "cauchy", "exponential", "geometric", "log_normal"),
]
#: Known limits, see simulator/README.md.
LIMITS = {
    ("as_strided", "partial_views"): "relies on memory outside the copied view",
    ("tensor_split", ""): "needs its index tensor on the CPU, by design",
}
OPERATORS = [
    op
    for op in op_db
    if not any(word in op.name for word in SKIPPED)
    and (op.name, op.variant_test_name) not in LIMITS
    and torch.float32 in op.dtypes
]
QUICK = OPERATORS[::4]
#: In fp16 the CPU is less exact than the simulator: it rounds inside these operators (matrix_exp gives NaN).
#: soft_margin_loss overflows to inf inside although its mean is finite; the wheels have one kernel for it.
CPU_IS_ROUGH = {"matrix_exp", "nn.functional.conv_transpose3d", "grid_sampler_2d", "grid_sampler_3d"}
CPU_IS_ROUGH.add("nn.functional.soft_margin_loss")
HALVES = [
    op for op in OPERATORS if {torch.float16, torch.bfloat16} <= op.dtypes and op.name not in CPU_IS_ROUGH
]
TOLERANCE = {
    torch.float32: {"rtol": 1e-4, "atol": 1e-5},
    torch.float16: {"rtol": 1e-2, "atol": 1e-2},
    torch.bfloat16: {"rtol": 2e-2, "atol": 4e-2},  # a composite may be decomposed in another way
}


def _names(operators):
    return [f"{op.name}.{op.variant_test_name}".rstrip(".") for op in operators]


def _agree(op, dtype: torch.dtype, samples: int) -> None:
    compared = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=False):
        if compared == samples:
            break
        torch.manual_seed(0)
        try:
            expected = op(sample.input, *sample.args, **sample.kwargs)
        except Exception:  # a sample that the CPU refuses is no test of the device
            continue
        moved = sample.transform(lambda x: x.npu() if isinstance(x, torch.Tensor) else x)
        moved = moved.transform(lambda x: NPU if isinstance(x, torch.device) else x)
        torch.manual_seed(0)
        result = op(moved.input, *moved.args, **moved.kwargs)
        _same(result, expected, dtype)
        compared += 1
    assert compared, f"no sample of {op.name} could be compared"


def _same(result, expected, dtype) -> None:
    if isinstance(expected, torch.Tensor):
        assert result.dtype is expected.dtype
        tolerance = TOLERANCE[dtype]
        torch.testing.assert_close(result.cpu(), expected, equal_nan=True, **tolerance)
    elif isinstance(expected, (list, tuple)):
        for r, e in zip(result, expected, strict=True):
            _same(r, e, dtype)
    elif isinstance(expected, float):
        assert result == pytest.approx(expected, rel=1e-3)
    elif isinstance(expected, (int, bool, str)) or expected is None:
        assert result == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", QUICK, ids=_names(QUICK))
def test_operator_database(op):
    _agree(op, torch.float32, samples=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", OPERATORS, ids=_names(OPERATORS))
def test_whole_operator_database(op):
    _agree(op, torch.float32, samples=8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("op", HALVES, ids=_names(HALVES))
def test_operator_database_in_half_precision(op, dtype):
    _agree(op, dtype, samples=2)
