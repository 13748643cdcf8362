"""The relative error of a tensor, and its largest allowed value in each dtype.

The formula, for `ours` and `expected` of one shape, in fp64 on the host:

    relative error = |ours - expected| / |expected|        |x| = sqrt(sum(x ** 2)), over all elements

Equal infinities and pairs of NaN count as no difference. Any other value that is not finite counts as an
infinite difference.

A new dtype needs a name in dtypes.py and a row in TOLERANCES. `deskocr prove` has a separate budget for each
slot, with the reason: operators/prove/budgets.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .dtypes import dtype_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TINY = 1e-30  # used in place of |expected| = 0


@dataclass(frozen=True)
class Tolerance:
    """Largest relative error of a result in one dtype.

    operator: for a fused operator on a device; a larger error means a wrong result, not only rounding. An NPU
        may compute fp32 in hf32, which has 11 bits, hence the same bound as for fp16. 0: such
        operators accept no tensor of this dtype.
    block: for one block with the inputs of the reference and the same arithmetic in another order. fp32: sums
        of a few thousand products differ by 1e-6; a wrong formula (tanh for erf) by 1e-4 and more. fp16 and
        bf16: a few roundings of 2**-11 and 2**-8; if the result of the same dtype on the CPU is available,
        twice its error is the bound instead.
    network: for a whole network, in which errors add up and near ties of the router flip. Also the most that
        the same dtype on the CPU can excuse in a block.
    """

    operator: float
    block: float
    network: float


TOLERANCES = {
    "float64": Tolerance(operator=0.0, block=1e-10, network=1e-9),
    "float32": Tolerance(operator=5e-3, block=2e-5, network=1e-3),
    "float16": Tolerance(operator=5e-3, block=4e-3, network=5e-2),
    "bfloat16": Tolerance(operator=3e-2, block=3e-2, network=2e-1),
}


def tolerance(dtype: torch.dtype | str) -> Tolerance:
    """The tolerance of a dtype; that of fp32 for a dtype without its own row."""
    return TOLERANCES.get(dtype_name(dtype), TOLERANCES["float32"])


def difference(ours: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """(|ours - expected|, |expected|), element by element, in fp64 on the host.

    Both tensors have the same shape, any dtype and any device. Values of `expected` that are not finite are 0
    in the second tensor.
    """
    a, b = ours.detach().cpu().double(), expected.detach().cpu().double()
    inf = float("inf")
    same = (a == b) | (a.isnan() & b.isnan())
    return (a - b).abs().nan_to_num(inf, inf, inf).masked_fill(same, 0.0), b.abs().nan_to_num(0.0, 0.0, 0.0)


def relative_error(ours: Tensor, expected: Tensor) -> float:
    """|ours - expected| / |expected| as defined above; infinite for tensors of different shapes."""
    if tuple(ours.shape) != tuple(expected.shape):
        return float("inf")
    return ratio_of_norms(*difference(ours, expected))


def ratio_of_norms(away: Tensor, scale: Tensor) -> float:
    """|away| / |scale|: the relative error from the two tensors of `difference`."""
    return (away.norm() / scale.norm().clamp_min(TINY)).item()
