"""`linear` in one step, if nothing is recorded.

PyTorch decomposes it above the backend: a transpose, a product, and often two views. Each of them is a call
into Python here. After a large product has emptied the caches, such a call costs three to ten times as much
as in a loop; that was a third of the cost of simulating a decoder. Therefore the CPU's own `linear` does it
all, with the same bits, if nothing is recorded, no gradient is needed and the profile changes none of the
parts.
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from . import counters, kernels, state
from .alias import to_cpu, to_npu
from .rounding import rounded_call

NAME = "aten::linear"
#: The operators that it can consist of.
PARTS = (
    NAME,
    "aten::matmul",
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::add.Tensor",
    "aten::add_.Tensor",
)
_KINDS = (torch.Tensor, torch.nn.Parameter)  # not FakeTensor and other subclasses, which dispatch differently


def register(library) -> None:
    """Register the kernel on the autograd key, where PyTorch would decompose it.

    The kernel table has no entry for it, unless a profile names it.
    """
    op = kernels.operator(NAME)
    below, modes = torch._C._AutoDispatchBelowAutograd, torch._C._len_torch_dispatch_stack
    call, table, plain, active = torch.nn.functional.linear, kernels.table, kernels.plain, counters.active

    def linear(input, weight, bias=None):
        given = (input, weight) if bias is None else (input, weight, bias)
        wants_gradient = _differentiated(given)
        if wants_gradient or active or modes() or not _simple(given):
            return apart(wants_gradient, input, weight, bias)
        if any(table.get(part) is not plain.get(part) for part in PARTS):
            return apart(wants_gradient, input, weight, bias)
        cpu = [to_cpu(x) for x in given]
        rounds = state.round_half and input.dtype is torch.float16
        result = rounded_call(call, cpu, {}, ()) if rounds else call(*cpu)
        return to_npu(result, input.get_device())

    def apart(wants_gradient, *args):
        if wants_gradient or table.get(NAME) is plain.get(NAME):  # the profile in use does not name it
            return op.decompose(*args)
        with below():
            return op(*args) if modes() else table[NAME](*args)

    library.impl("linear", linear, "AutogradPrivateUse1")


def _differentiated(given: tuple) -> bool:
    """Whether a gradient is needed, backwards or in forward-mode differentiation."""
    return (torch.is_grad_enabled() and any(x.requires_grad for x in given)) or forward_ad._current_level >= 0


def _simple(given: tuple) -> bool:
    """Whether these are plain tensors of one device and dtype.

    A bias is allowed only if PyTorch adds it inside the product; otherwise fp16 would be rounded once instead
    of twice.
    """
    first = given[0]
    index, dtype = first.get_device(), first.dtype
    if any(type(x) not in _KINDS or x.get_device() != index or x.dtype is not dtype for x in given):
        return False
    return len(given) == 2 or (first.dim() in (2, 3) and first.is_contiguous())
