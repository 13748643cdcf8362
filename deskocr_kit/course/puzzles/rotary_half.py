"""Puzzle: rotary embedding in the half-split layout."""

from __future__ import annotations

import torch

from .judge import small
from .puzzle import Case, Puzzle


def rotary_half(x, cos, sin):
    """Rotate the pairs (i, i + k/2) of x (b, h, n, k), not the pairs (2i, 2i + 1).

    cos, sin (n, k/2): cosine and sine of the angle of each pair at each position.
    """
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def reference(x, cos, sin):
    """As complex numbers: (left + i right) times (cos + i sin)."""
    half = x.shape[-1] // 2
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)
    return torch.cat((turned.real, turned.imag), -1)


def cases():
    for label, b, h, n, k in (
        ("one pair", 1, 1, 3, 2),
        ("four pairs", 1, 1, 5, 8),
        ("heads and a batch", 2, 3, 4, 8),
    ):
        x, angle = small(b, h, n, k), small(n, k // 2, seed=1)
        yield Case(label, (x, angle.cos(), angle.sin()), reference(x, angle.cos(), angle.sin()))
    x, angle = small(1, 2, 4, 6), torch.zeros(4, 3)
    yield Case("no rotation", (x, angle.cos(), angle.sin()), x.clone())
    x, angle = small(1, 1, 4, 8), torch.full((4, 4), torch.pi / 2)
    yield Case("a quarter turn", (x, angle.cos(), angle.sin()), torch.cat((-x[..., 4:], x[..., :4]), -1))


PUZZLE = Puzzle(
    title="Rotary: half-split or interleaved?",
    chinese="旋转位置编码有两种排法：前后两半配对，或相邻两个配对；用错一种，数值看似合理却全错。",
    difficulty=2,
    importance=4,
    minutes=5,
    hint="A point (l, r) rotated by an angle a is (l cos a - r sin a, r cos a + l sin a). Where does x hold "
    "l and r?",
    solution=rotary_half,
    cases=cases,
)
