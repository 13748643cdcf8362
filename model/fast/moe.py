"""A mixture of experts without asking the device which experts were chosen.

The reference waits for the device once per layer and token and starts a handful of small products per expert.
These do the same sum in a few large operators, or with one wait for all experts together.

All: x (n, d), gate_up (e, 2i, d), down (e, d, i), ids (n, top) and weights (n, top) fp32 -> (n, d). The sum
over the chosen experts is made in fp32 and rounded once, as in the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from model.slots import swiglu


class OneToken:
    """One token through one layer's chosen and shared experts, in seven operators.

    The chosen experts are copied next to the shared ones, which lie there already: two products for all, the
    second one sums over the experts too. Memory: the weights of the chosen and the shared experts, per layer
    (55 MB at the official sizes in half precision, in 11 layers).
    """

    def __init__(self, mlp, swiglu: Callable):
        experts, shared = mlp.experts, mlp.shared_experts
        (_, d, i), self.top, self.swiglu = experts.down_proj.shape, mlp.top, swiglu
        more = shared.down_proj.weight.shape[1] // i
        self.experts = experts
        self.gate_up = experts.gate_up_proj.new_empty(self.top + more, 2, i, d)
        self.gate_up[self.top :] = shared.gate_up_proj.weight.view(2, more, i, d).transpose(0, 1)
        self.down = experts.down_proj.new_empty(d, self.top + more, i)
        self.down[:, self.top :] = shared.down_proj.weight.view(d, more, i)

    def __call__(self, onto: Tensor, x: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
        """onto + the weighted sum of all. onto and x (1, d), ids and weights (1, top)."""
        top, (d, each, i) = self.top, self.down.shape
        chosen = self.gate_up.view(each, 2 * i, d)[:top]
        torch.index_select(self.experts.gate_up_proj, 0, ids[0], out=chosen)
        hidden = self.swiglu(F.linear(x, self.gate_up.view(-1, d)).view(each, 2 * i))
        hidden[:top].mul_(weights[0, :, None])
        torch.index_select(self.experts.down_proj, 0, ids[0], out=self.down.transpose(0, 1)[:top])
        return torch.addmm(onto, hidden.view(1, -1), self.down.view(d, -1).T)


def one_token(mlp, batch: int, swiglu: Callable = swiglu) -> Callable | None:
    """`prepared` of `gathered`, see model/slots.py: for one sample, in the network's own weights."""
    return OneToken(mlp, swiglu) if batch == 1 else None


def by_number_of_tokens(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The default: `gathered` for few tokens, `grouped` for many.

    On the host there is nobody to wait for, and copying weights side by side would double what is read. There
    one token goes through its experts in place, and more than one are always grouped.
    """
    if x.device.type == "cpu":
        return (in_place if len(x) == 1 else grouped)(x, gate_up, down, ids, weights)
    return gathered(x, gate_up, down, ids, weights)


def in_place(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """One token after the other, each chosen expert's weights read where they lie. Waits, so for the CPU."""
    if nothing(x, ids, weights):
        return torch.zeros_like(x)
    rows = [
        F.linear(swiglu(F.linear(row[None], gate_up[expert])), down[expert])
        for row, chosen in zip(x, ids.tolist(), strict=True)
        for expert in chosen
    ]
    return weighted_sum(torch.cat(rows).view(*ids.shape, x.shape[-1]), weights).to(x.dtype)


def gathered(
    x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor, swiglu: Callable = swiglu
) -> Tensor:
    """Few tokens: copy the chosen experts' weights side by side, two batched products. Never waits.

    Memory: the weights of n * top experts. With more pairs than there are experts that would be more than all
    weights together (38 GB for a page at the official sizes): then `grouped` does it.
    """
    if not few(x, gate_up, down, ids):
        return grouped(x, gate_up, down, ids, weights)
    if nothing(x, ids, weights):
        return torch.zeros_like(x)
    n, top = ids.shape
    chosen = ids.reshape(-1)
    rows = x[:, None].expand(n, top, x.shape[-1]).reshape(n * top, 1, -1)
    hidden = swiglu(torch.bmm(rows, gate_up.index_select(0, chosen).transpose(1, 2)))
    y = torch.bmm(hidden, down.index_select(0, chosen).transpose(1, 2)).view(n, top, -1)
    return weighted_sum(y, weights).to(x.dtype)


def few(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, *_) -> bool:
    """Whether gathered does the work itself."""
    return ids.numel() <= len(gate_up)


gathered.fits = few
gathered.prepared = one_token
by_number_of_tokens.prepared = lambda mlp, batch: (
    None if mlp.gate.weight.device.type == "cpu" else one_token(mlp, batch, mlp.slots.swiglu)
)


def grouped(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Many tokens: sort the (token, expert) pairs by expert, then each expert multiplies one slice of rows.

    One wait for all experts, for the sizes of the slices.
    """
    if nothing(x, ids, weights):
        return torch.zeros_like(x)
    order, sizes = sort_by_expert(ids, gate_up.shape[0])
    rows = x.index_select(0, order // ids.shape[1])
    slices = rows.split(_every_pair(sizes.tolist(), ids, gate_up))
    y = [
        F.linear(swiglu(F.linear(part, gate_up[expert])), down[expert])
        for expert, part in enumerate(slices)
        if len(part)
    ]
    return unsort(torch.cat(y), order, weights).to(x.dtype)


def grouped_mm(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """The same by torch's grouped product: one operator for all experts, no wait. Needs torch >= 2.8.

    On a CUDA card it takes what torch's operator takes (bf16 everywhere; more in newer versions). Rows must
    be multiples of 16 bytes; else `grouped` does it.
    """
    if not hasattr(torch, "_grouped_mm"):
        raise NotImplementedError(f"torch {torch.__version__} has no torch._grouped_mm; it came with 2.8")
    if not aligned(x, gate_up, down, ids):
        return grouped(x, gate_up, down, ids, weights)
    if nothing(x, ids, weights):
        return torch.zeros_like(x)
    order, sizes = sort_by_expert(ids, gate_up.shape[0])
    if ids.device.type == "cpu" and not isinstance(ids, FakeTensor):  # else one would have to wait
        _every_pair(sizes.tolist(), ids, gate_up)
    ends = sizes.cumsum(0, dtype=torch.int32)
    rows = x.index_select(0, order // ids.shape[1])
    hidden = swiglu(torch._grouped_mm(rows, gate_up.transpose(1, 2), offs=ends))
    return unsort(torch._grouped_mm(hidden, down.transpose(1, 2), offs=ends), order, weights).to(x.dtype)


def aligned(x: Tensor, gate_up: Tensor, down: Tensor, ids: Tensor, *_) -> bool:
    """Whether grouped_mm does the work itself."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    strides = (n for t in (gate_up, down) for n in (*t.stride(), *t.shape[1:]))
    return min(gate_up.numel(), down.numel()) > 0 and all(
        n == 1 or n * x.element_size() % 16 == 0 for n in strides
    )


grouped_mm.fits = aligned


def nothing(x: Tensor, ids: Tensor, weights: Tensor) -> bool:
    """Whether there is no pair of token and expert. Raises ValueError unless there is a row of ids and of
    weights for every token."""
    if x.dim() != 2 or ids.shape != weights.shape or len(ids) != len(x) or ids.is_floating_point():
        raise ValueError(
            "moe: x (n, d), whole numbers ids (n, top) and weights (n, top) are wanted, got "
            f"{tuple(x.shape)}, {tuple(ids.shape)} {ids.dtype} and {tuple(weights.shape)}"
        )
    return ids.numel() == 0


def _every_pair(sizes: list[int], ids: Tensor, gate_up: Tensor) -> list[int]:
    """`sizes`, if each id was counted. Raises IndexError if one names no expert."""
    if sum(sizes) != ids.numel():
        raise IndexError(f"moe: an id is not one of the {len(gate_up)} experts, 0 to {len(gate_up) - 1}")
    return sizes


def sort_by_expert(ids: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """order (n*top) that sorts the pairs by expert, stable, and how many pairs each expert has (e) int32.

    Sorted as fp32, and counted by comparison: integers sort, and bincount runs, on an NPU's AI CPU.
    """
    chosen = ids.reshape(-1)
    order = chosen.float().argsort(stable=True)
    every = torch.arange(experts, device=ids.device, dtype=ids.dtype)
    return order, (chosen[None] == every[:, None]).sum(1, dtype=torch.int32)


def unsort(y: Tensor, order: Tensor, weights: Tensor) -> Tensor:
    """y (n*top, d) in sorted order -> (n, d) fp32: each token's experts, weighted and summed."""
    n, top = weights.shape
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted_sum(y.index_select(0, back).view(n, top, -1), weights)


def weighted_sum(y: Tensor, weights: Tensor) -> Tensor:
    """(n, top, d), (n, top) fp32 -> (n, d) in fp32 (or wider): the product promotes y, in one operator."""
    if weights.dtype in (torch.float16, torch.bfloat16):
        weights = weights.float()
    return (y * weights[..., None]).sum(1)
