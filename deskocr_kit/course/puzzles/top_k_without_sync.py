"""Puzzle: a mixture of experts in which the host never learns the chosen experts."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle
from .sandbox import never_waits


def top_k_without_sync(x, experts, scores, top):
    """Each token goes through its `top` best experts; the host never learns which.

    x (n, d), experts (e, o, d): one matrix each, scores (n, e) -> (n, o): the sum of
    softmax(scores)[expert] * (experts[expert] @ x) over the chosen experts.
    """
    share, chosen = scores.softmax(-1).topk(top, dim=-1)  # n top
    y = torch.einsum("nd,ntod->nto", x, experts[chosen])
    return (y * share[..., None]).sum(1)


def loop(x, experts, scores, top):
    """The usual way: read the chosen experts on the host, then compute one after the other."""
    share, chosen = scores.softmax(-1).topk(top, dim=-1)
    out = x.new_zeros(len(x), experts.shape[1])
    for expert in chosen.unique().tolist():
        token, place = (chosen == expert).nonzero(as_tuple=True)
        y = x[token] @ experts[expert].T
        out = out.index_add(0, token, y * share[token, place, None])
    return out


def cases():
    for label, n, e, top in (
        ("one token, one expert", 1, 4, 1),
        ("one token", 1, 8, 3),
        ("six tokens", 6, 8, 2),
        ("all experts", 3, 4, 4),
    ):
        args = (small(n, 5), small(e, 6, 5, seed=1), small(n, e, seed=2), top)
        yield Case(label, args, loop(*args), look=never_waits)
    crowded = torch.tensor([[9.0, 8.0, 0.0, 0.0]]).expand(5, 4) + small(5, 4, seed=3) / 10
    args = (small(5, 5), small(4, 6, 5, seed=1), crowded, 2)
    yield Case("all tokens choose the same two experts", args, loop(*args), look=never_waits)


PUZZLE = Puzzle(
    title="Top-k routing without a wait",
    chinese="专家路由不问设备“选了谁”：把被选中的权重收集起来，一次批量乘法。",
    difficulty=3,
    importance=5,
    minutes=15,
    hint="topk gives indices on the device; experts[chosen] gathers whole matrices (n, top, o, d), and "
    "one einsum multiplies them all.",
    solution=top_k_without_sync,
    cases=cases,
)
