"""Operators that PyTorch decomposes above the backend, but torch_npu runs as one kernel.

They need a kernel on two keys: below autograd (that of the device) and on the autograd key, because PyTorch
would otherwise decompose the operator before it reaches the device. With gradients they are decomposed too.
"""

from __future__ import annotations

import torch

from ..opcount.operator_mode import differentiated
from . import counters, kernels, linear, recurrent, state
from .alias import to_cpu, to_npu
from .kernels import mixed_devices, operator
from .rounding import rounded_call

Tensor = torch.Tensor
_SDPA = "aten::scaled_dot_product_attention"


def attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """softmax(q kT scale + mask) v; shapes as in torch.nn.functional.scaled_dot_product_attention.

    The result is contiguous, as a fused attention of a device gives it; the CPU's is not always.
    """
    for tensor in (key, value, attn_mask):
        if tensor is not None and tensor.get_device() != query.get_device():
            mixed_devices(_SDPA, str(query.device), str(tensor.device))
    if counters.active:
        counters.note("launch", _SDPA)
    options = {"enable_gqa": True} if enable_gqa else {}

    def call(q, k, v, mask):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, mask, dropout_p, is_causal, scale=scale, **options
        )

    tensors = [to_cpu(query), to_cpu(key), to_cpu(value), None if attn_mask is None else to_cpu(attn_mask)]
    result = rounded_call(call, tensors, {}, ()) if state.round_half else call(*tensors)
    return to_npu(result.contiguous(), query.get_device())


def register(library, name: str, body, blockable: bool = False) -> None:
    """Register `body` for the composite operator `name` on both keys.

    blockable: `body` only decomposes the operator, so that a profile can replace it. Under any other profile
    the operator is decomposed above the backend, as if it had no kernel.
    """
    op = operator(name)
    kernels.register(library, name, body)
    if name == linear.NAME:  # its kernel on the autograd key exists already and uses the table
        return
    below = torch._C._AutoDispatchBelowAutograd
    modes = torch._C._len_torch_dispatch_stack
    table = kernels.table

    def above(*args, **kwargs):
        if differentiated(args) or (blockable and table[name] is body):
            return apart(*args, **kwargs)
        with below():
            # Through the dispatcher only with dispatch modes or FakeTensor, because it doubles the cost.
            return op(*args, **kwargs) if modes() else table[name](*args, **kwargs)

    apart = _attention_apart if name == _SDPA else op.decompose
    library.impl(name.removeprefix("aten::"), above, "AutogradPrivateUse1")


def _attention_apart(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    return torch.ops.aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


def one_hot(self, num_classes=-1):
    """one_hot. Without a number of classes the host needs the largest index before it can allocate."""
    if num_classes < 0 and counters.active:
        counters.note("sync", "aten::one_hot")
    if counters.active:
        counters.note("launch", "aten::one_hot")
    return to_npu(torch.nn.functional.one_hot(to_cpu(self), num_classes), self.get_device())


def body_of(name: str):
    """The single kernel of a composite operator."""
    own = {_SDPA: attention, "aten::one_hot": one_hot}.get(name)
    return own or recurrent.body_of(name) or kernels.make(name)
