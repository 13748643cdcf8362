"""The router of a mixture of experts in one launch: RMS norm, scores, softmax, and the best experts.

While decoding the norm is part of it. In a prompt the norm is computed with the sum before it, see norms.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .language import tl, triton
from .launch import launch, power_of_two
from .sizes import DEPTH


@triton.jit
def router_kernel(
    x,
    norm,
    gate,
    normed,
    ids,
    weights,
    width,
    experts,
    eps,
    factor,
    TOP: tl.constexpr,
    NORM: tl.constexpr,
    RENORMALISE: tl.constexpr,
    BE: tl.constexpr,
    BD: tl.constexpr,
):
    row = tl.program_id(0)
    expert = tl.arange(0, BE)
    scale = 1.0
    if NORM:
        squares = tl.zeros((BD,), dtype=tl.float32)
        for start in range(0, width, BD):
            at = start + tl.arange(0, BD)
            part = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)
            squares += part * part
        scale = 1.0 / tl.sqrt(tl.sum(squares, 0) / width + eps)
    scores = tl.zeros((BE,), dtype=tl.float32)
    for start in range(0, width, BD):
        at = start + tl.arange(0, BD)
        part = tl.load(x + row * width + at, mask=at < width, other=0.0).to(tl.float32)
        if NORM:
            part = (part * scale).to(normed.dtype.element_ty).to(tl.float32)
            stretch = tl.load(norm + at, mask=at < width, other=0.0).to(tl.float32)
            rounded = (part * stretch).to(normed.dtype.element_ty)
            tl.store(normed + row * width + at, rounded, mask=at < width)
            part = rounded.to(tl.float32)
        inside = (expert < experts)[:, None] & (at < width)[None, :]
        a = tl.load(gate + expert[:, None] * width + at[None, :], mask=inside, other=0.0).to(tl.float32)
        scores += tl.sum(a * part[None, :], 1)
    scores = tl.where(expert < experts, scores, -float("inf"))
    shares = tl.exp(scores - tl.max(scores, 0))
    shares = shares / tl.sum(shares, 0)
    slot = tl.arange(0, 16)
    best = tl.zeros((16,), dtype=tl.float32)
    chosen = tl.zeros((16,), dtype=tl.int32)
    left = shares
    for i in range(TOP):
        highest = tl.max(left, 0)
        # The first of several equal experts, as torch.topk on a CPU.
        first = tl.min(tl.where(left == highest, expert, BE), 0)
        best = tl.where(slot == i, highest, best)
        chosen = tl.where(slot == i, first, chosen)
        left = tl.where(expert == first, -1.0, left)
    if RENORMALISE:
        best = best / (tl.sum(best, 0) + 1e-20)
    tl.store(ids + row * TOP + slot, chosen, mask=slot < TOP)
    tl.store(weights + row * TOP + slot, best * factor, mask=slot < TOP)


def route(
    x: Tensor, norm: Tensor | None, eps: float, gate: Tensor, top: int, renormalise: bool, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x (n, d), norm (d), gate (e, d) -> RMS norm of x (n, d), expert ids (n, top) int32, weights fp32.

    norm None: x has its norm already, and is the first result.

    Raises:
        NotImplementedError: more than 16 experts per token.
    """
    if top > 16:
        raise NotImplementedError(f"router: {top} experts per token, the kernel keeps 16")
    n, width = x.shape
    x = x.contiguous()
    normed = x if norm is None else torch.empty_like(x)
    ids = torch.empty(n, top, dtype=torch.int32, device=x.device)
    weights = torch.empty(n, top, dtype=torch.float32, device=x.device)
    launch(
        router_kernel,
        (n,),
        x,
        gate if norm is None else norm,
        gate,
        normed,
        ids,
        weights,
        width,
        len(gate),
        float(eps),
        float(factor),
        TOP=top,
        NORM=norm is not None,
        RENORMALISE=renormalise,
        BE=power_of_two(len(gate)),
        BD=min(DEPTH // 2, power_of_two(width)),  # 64 experts times 128 numbers in fp32: 32 KiB
    )
    return normed, ids, weights
