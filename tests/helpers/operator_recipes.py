"""Calls of one line, the operators that each runs on a device, and its number of host waits.

The operators are those of opcount/definition.py, so they are the same on every device. `call` gets the name
of the device, creates its tensors, and returns the function to run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F


class Recipe(NamedTuple):
    call: Callable[[str], Callable[[], object]]
    operators: dict[str, int]
    waits: int = 0


def _on(*shapes, dtype=torch.float32):
    """A recipe: it makes ones of these shapes on a device and returns the call with them."""

    def make(run):
        return lambda device: _ready(run, [torch.ones(s, dtype=dtype, device=device) for s in shapes])

    return make


def _ready(run, made):
    return lambda: run(*made)


def _module(make, *shape):
    def ready(device):
        module, x = make().eval().to(device), torch.ones(shape, device=device)
        return lambda: module(x)

    return ready


RECIPES = {
    "attention, then heads beside each other": Recipe(
        _on((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4))(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 3, 8)
        ),
        {"scaled_dot_product_attention": 1, "clone": 1},
    ),
    # one kernel in both wheels; PyTorch decomposes them
    "matmul": Recipe(_on((2, 3, 4), (4, 5))(lambda a, b: a @ b), {"matmul": 1}),
    "linear": Recipe(_on((2, 3, 4), (5, 4))(F.linear), {"matmul": 1}),
    "linear with bias": Recipe(_on((3, 4), (5, 4), (5,))(F.linear), {"addmm": 1}),
    "softmax": Recipe(_on((3, 4))(lambda x: x.softmax(-1)), {"softmax.int": 1}),
    "attention": Recipe(
        _on((1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4))(F.scaled_dot_product_attention),
        {"scaled_dot_product_attention": 1},
    ),
    "isfinite": Recipe(_on((3,))(torch.isfinite), {"isfinite": 1}),
    "isclose": Recipe(_on((3,), (3,))(torch.isclose), {"isclose": 1}),
    "argsort": Recipe(_on((3,))(lambda x: x.argsort(stable=True)), {"argsort.stable": 1}),
    "one_hot": Recipe(_on((3,), dtype=torch.long)(lambda x: F.one_hot(x, 4)), {"one_hot": 1}),
    "lstm": Recipe(_module(lambda: torch.nn.LSTM(4, 4), 3, 1, 4), {"zeros": 2, "lstm.input": 1}),
    # PyTorch shows one operator; both wheels have one kernel
    "sum": Recipe(_on((3,))(torch.sum), {"sum": 1}),
    "abs": Recipe(_on((3,))(torch.abs), {"abs": 1}),
    "sort": Recipe(_on((3,))(torch.sort), {"sort": 1}),
    "logsumexp": Recipe(_on((3, 4))(lambda x: x.logsumexp(-1)), {"logsumexp": 1}),
    "nan_to_num": Recipe(_on((3,))(torch.nan_to_num), {"nan_to_num": 1}),
    "foreach": Recipe(_on((3,), (3,))(lambda *x: torch._foreach_add_(x, 1.0)), {"_foreach_add_.Scalar": 1}),
    "index_put_": Recipe(
        lambda device: _ready(
            lambda x, i, v: x.index_put_((i,), v),
            [torch.ones(3, device=device), torch.ones(2, dtype=torch.long, device=device),
             torch.ones(2, device=device)],
        ),
        {"index_put_": 1},
    ),
    "layer_norm": Recipe(_module(lambda: torch.nn.LayerNorm(4), 3, 4), {"native_layer_norm": 1}),
    "convolution": Recipe(_module(lambda: torch.nn.Conv2d(3, 4, 2), 1, 3, 4, 4), {"convolution": 1}),
    # no kernel in a wheel: counted by their parts
    "new_full": Recipe(_on((3,))(lambda x: x.new_full((2,), 7.0)), {"fill_.Scalar": 1}),
    "new_zeros": Recipe(_on((3,))(lambda x: x.new_zeros(2)), {"zero_": 1}),
    "masked_fill": Recipe(
        _on((3,), dtype=torch.bool)(lambda x: x.masked_fill(x, True)), {"clone": 1, "masked_fill_.Scalar": 1}
    ),
    "masked_scatter": Recipe(
        _on((3,), dtype=torch.bool)(lambda x: x.masked_scatter(x, x)), {"clone": 1, "masked_scatter_": 1}
    ),
    "rand": Recipe(lambda device: lambda: torch.rand(3, device=device), {"uniform_": 1}),
    # copies on the device are launches
    "to another dtype": Recipe(_on((3,))(lambda x: x.half()), {"_to_copy": 1}),
    "clone": Recipe(_on((3,))(lambda x: x.clone()), {"clone": 1}),
    "contiguous": Recipe(_on((3, 4))(lambda x: x.t().contiguous()), {"clone": 1}),
    "copy_": Recipe(_on((3,), (3,))(lambda x, y: x.copy_(y)), {"copy_": 1}),
    "reshape that copies": Recipe(_on((3, 4))(lambda x: x.t().reshape(12)), {"clone": 1}),
    # nothing to do
    "views": Recipe(_on((3, 4))(lambda x: x.t()[1:].unsqueeze(0).expand(2, 3, 3).detach()), {}),
    "shape in place": Recipe(_on((3, 4))(lambda x: x.t_().unsqueeze_(0).transpose_(0, 1)), {}),
    "allocation": Recipe(_on((3,))(lambda x: (torch.empty_like(x), x.new_empty(4), x.resize_(2))), {}),
    # the host waits
    "equal": Recipe(_on((3,), (3,))(torch.equal), {"equal": 1}, 1),
    "unique": Recipe(_on((3,))(lambda x: x.unique()), {"_unique2": 1}, 1),
    "a mask of bools as index": Recipe(
        _on((3,), dtype=torch.bool)(lambda x: x[x]), {"index.Tensor": 1}, 1
    ),
    "bools written by index": Recipe(  # bools as the values are not a mask
        lambda device: _ready(
            lambda x, i, v: x.index_put_((i,), v),
            [torch.ones(3, dtype=torch.bool, device=device), torch.ones(2, dtype=torch.long, device=device),
             torch.ones(2, dtype=torch.bool, device=device)],
        ),
        {"index_put_": 1},
    ),
    "one_hot of unknown size": Recipe(_on((3,), dtype=torch.long)(F.one_hot), {"one_hot": 1}, 1),
    "item": Recipe(_on((1,))(lambda x: x.item()), {}, 1),
}  # fmt: skip

#: Recipes that need values, which a "meta" tensor does not have.
NEEDS_VALUES = ("equal", "unique", "a mask of bools as index", "one_hot of unknown size", "item")
