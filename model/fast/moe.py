"""Mixtures of experts that do not read the chosen expert ids back from the device.

The reference waits for the device once per layer and token and launches several small products per expert.
The implementations here compute the same sum in a few large operators, or with one wait for all experts.

Signature of all: x (n, d), gate_up (e, 2i, d), down (e, d, i), ids (n, top), weights (n, top) fp32 -> (n, d).
The sum over the chosen experts is accumulated in fp32 and rounded once, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ..slots import operator, swiglu


class OneToken:
    """One token through the chosen and the shared experts of one layer, in seven operators.

    A buffer holds the shared experts. For each token the chosen experts are copied next to them. Two products
    then compute all experts; the second one also sums over the experts. Memory: the weights of the chosen and
    the shared experts, per layer (55 MB at the official sizes in half precision, in 11 layers).
    """

    def __init__(self, mlp, swiglu: Callable):
        experts, shared = mlp.experts, mlp.shared_experts
        (_, d, i), self.top, self.swiglu = experts.down_proj.shape, mlp.top, swiglu
        count = shared.down_proj.weight.shape[1] // i  # shared experts
        self.experts = experts
        self.gate_up = experts.gate_up_proj.new_empty(self.top + count, 2, i, d)
        self.gate_up[self.top :] = shared.gate_up_proj.weight.view(2, count, i, d).transpose(0, 1)
        self.down = experts.down_proj.new_empty(d, self.top + count, i)
        self.down[:, self.top :] = shared.down_proj.weight.view(d, count, i)

    def __call__(self, residual: Tensor, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """residual + the weighted sum of all experts. residual and x (1, d), ids and weights (1, top)."""
        top, (d, each, i) = self.top, self.down.shape
        chosen = self.gate_up.view(each, 2 * i, d)[:top]
        torch.index_select(self.experts.gate_up_proj, 0, ids[0], out=chosen)
        hidden = self.swiglu(F.linear(x, self.gate_up.view(-1, d)).view(each, 2 * i))
        hidden[:top].mul_(weights[0, :, None])
        torch.index_select(self.experts.down_proj, 0, ids[0], out=self.down.transpose(0, 1)[:top])
        return torch.addmm(residual, hidden.view(1, -1), self.down.view(d, -1).T)


def one_token(mlp, batch: int, swiglu: Callable = swiglu) -> Callable | None:
    """The `prepare` of `gathered` (see slots.Operator): a `OneToken` for one sample, None for a batch."""
    return OneToken(mlp, swiglu) if batch == 1 else None


def one_token_off_the_cpu(mlp, batch: int) -> Callable | None:
    """The `prepare` of `auto`: on a CPU the experts are read in place, so nothing is prepared."""
    return None if mlp.gate.weight.device.type == "cpu" else one_token(mlp, batch, mlp.slots.swiglu)


@operator(prepare=one_token_off_the_cpu)
def auto(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The default: chooses by the number of tokens; `gathered` for few, `grouped` for many.

    On the CPU there is no device to wait for, and copying weights side by side would double the bytes read.
    There, one token goes through its experts in place, and several tokens are always grouped.
    """
    if x.device.type == "cpu":
        return (in_place if len(x) == 1 else grouped)(x, gate_up, down, ids, weights)
    return gathered(x, gate_up, down, ids, weights)


def in_place(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """One token after another; reads the weights of each chosen expert in place. Waits, so for the CPU."""
    check_routing(x, ids, weights)
    if ids.numel() == 0:
        return torch.zeros_like(x)
    rows = [
        F.linear(swiglu(F.linear(row[None], gate_up[expert])), down[expert])
        for row, chosen in zip(x, ids.tolist(), strict=True)
        for expert in chosen
    ]
    return weighted_sum(torch.cat(rows).view(*ids.shape, x.shape[-1]), weights).to(x.dtype)


def few_pairs(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, *_) -> bool:
    """Whether `gathered` computes this call itself."""
    return ids.numel() <= len(gate_up)


@operator(supports=few_pairs, prepare=one_token)
def gathered(
    x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor, swiglu: Callable = swiglu
) -> Tensor:
    """Few tokens: gather the weights of the chosen experts, then two batched products. Never waits.

    Memory: the weights of n * top experts. If there are more (token, expert) pairs than experts, that would
    exceed all weights together (38 GB for a page at the official sizes); `grouped` then computes the call.
    """
    if not few_pairs(x, gate_up, down, ids):
        return grouped(x, gate_up, down, ids, weights)
    check_routing(x, ids, weights)
    if ids.numel() == 0:
        return torch.zeros_like(x)
    n, top = ids.shape
    chosen = ids.reshape(-1)
    rows = x[:, None].expand(n, top, x.shape[-1]).reshape(n * top, 1, -1)
    hidden = swiglu(torch.bmm(rows, gate_up.index_select(0, chosen).transpose(1, 2)))
    y = torch.bmm(hidden, down.index_select(0, chosen).transpose(1, 2)).view(n, top, -1)
    return weighted_sum(y, weights).to(x.dtype)


def grouped(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Many tokens: sort the (token, expert) pairs by expert; each expert then multiplies one slice of rows.

    The host waits once per call, for the sizes of all slices.
    """
    check_routing(x, ids, weights)
    if ids.numel() == 0:
        return torch.zeros_like(x)
    order, sizes = sort_by_expert(ids, gate_up.shape[0])
    rows = x.index_select(0, order // ids.shape[1])
    slices = rows.split(checked_sizes(sizes.tolist(), ids, gate_up))
    y = [
        F.linear(swiglu(F.linear(part, gate_up[expert])), down[expert])
        for expert, part in enumerate(slices)
        if len(part)
    ]
    return unsort(torch.cat(y), order, weights).to(x.dtype)


def aligned(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, *_) -> bool:
    """Whether `grouped_mm` computes this call itself."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    strides = (n for t in (gate_up, down) for n in (*t.stride(), *t.shape[1:]))
    return min(gate_up.numel(), down.numel()) > 0 and all(
        n == 1 or n * x.element_size() % 16 == 0 for n in strides
    )


@operator(supports=aligned)
def grouped_mm(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """`grouped` with torch's grouped product: one operator for all experts, no wait. Needs torch >= 2.8.

    On a CUDA card it accepts the dtypes of torch's operator (bf16 everywhere; more in newer versions). Rows
    must be multiples of 16 bytes; otherwise `grouped` computes the call.
    """
    if not hasattr(torch, "_grouped_mm"):
        raise NotImplementedError(f"torch {torch.__version__} has no torch._grouped_mm; it needs torch 2.8")
    if not aligned(x, gate_up, down, ids):
        return grouped(x, gate_up, down, ids, weights)
    check_routing(x, ids, weights)
    if ids.numel() == 0:
        return torch.zeros_like(x)
    order, sizes = sort_by_expert(ids, gate_up.shape[0])
    if ids.device.type == "cpu" and not isinstance(ids, FakeTensor):  # elsewhere the check would be a wait
        checked_sizes(sizes.tolist(), ids, gate_up)
    ends = sizes.cumsum(0, dtype=torch.int32)
    rows = x.index_select(0, order // ids.shape[1])
    hidden = swiglu(torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    return unsort(torch._grouped_mm(hidden, down.transpose(1, 2), offs=ends), order, weights).to(x.dtype)


def check_routing(x: Tensor, ids: Tensor, weights: Tensor) -> None:
    """Raise ValueError unless every token has a row of integer ids and a row of weights."""
    if x.dim() != 2 or ids.shape != weights.shape or len(ids) != len(x) or ids.is_floating_point():
        raise ValueError(
            "moe: expected x (n, d), integer ids (n, top) and weights (n, top), got "
            f"{tuple(x.shape)}, {tuple(ids.shape)} {ids.dtype} and {tuple(weights.shape)}"
        )


def checked_sizes(sizes: list[int], ids: Tensor, gate_up: Tensor) -> list[int]:
    """Return `sizes`. Raises IndexError if an id names no expert, so that not every pair was counted."""
    if sum(sizes) != ids.numel():
        raise IndexError(f"moe: an id is not one of the {len(gate_up)} experts, 0 to {len(gate_up) - 1}")
    return sizes


def sort_by_expert(ids: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """The stable order (n*top) that sorts the pairs by expert, and the pairs per expert (e) int32.

    Sorts as fp32 and counts by comparison, because an NPU sorts integers and runs bincount on its AI CPU.
    """
    chosen = ids.reshape(-1)
    order = chosen.float().argsort(stable=True)
    every = torch.arange(experts, device=ids.device, dtype=ids.dtype)
    return order, (chosen[None] == every[:, None]).sum(1, dtype=torch.int32)


def unsort(y: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """y (n*top, d) in sorted order -> (n, d) fp32: the weighted sum of each token's experts."""
    n, top = weights.shape
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted_sum(y.index_select(0, back).view(n, top, -1), weights)


def weighted_sum(y: Tensor, weights: Tensor) -> Tensor:
    """(n, top, d), (n, top) fp32 -> (n, d) in fp32 or wider; the product promotes y in the same operator."""
    if weights.dtype in (torch.float16, torch.bfloat16):
        weights = weights.float()
    return (y * weights[..., None]).sum(1)
