"""Compare the text that two copies of a model generate, and explain where it differs.

    found = compare_generated(model, ported, inputs, max_new_tokens=16)
    found.same, found.ok, found

The reference generates greedily. Then the candidate generates with the same inputs, while its choice is
replaced by the reference's token at every step: both read the same text at each position, so their scores can
be compared. Without that, everything after the first difference would be another text. The candidate's own
greedy text equals the reference's exactly if no position differs.

A token that differs is explained if rounding decides it: the reference's margin is within the typical error,
and the scores are as close as those of the same dtype on the CPU (three-way, as in climb). A wrong layer also
makes small margins look like ties, because it raises the typical error; its scores exceed the budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from ..compare.logits import TokenRow
from ..compare.trace import move_to
from ..device.module_place import place_of
from ..device.tolerances import relative_error, tolerance
from ..display.table import text_table
from .left_behind import explained
from .move import port_module

SHOWN = 12
FACTOR = 3.0  # the device may have three times the error of the same dtype on the CPU: another order of sums


@dataclass
class Generated:
    """The result of `compare_generated`.

    rows: per sample, one TokenRow per generated token: the choices of both, the margin of the reference (its
    best score minus its second) and the differences of the scores. reference: (b, n) new token ids.
    """

    rows: list[list[TokenRow]]
    reference: Tensor
    error: float  # relative error of all scores
    budget: float
    peer: float | None = None  # the error of the same dtype on the CPU
    names: dict[int, str] = field(default_factory=dict)

    @property
    def different(self) -> list[tuple[int, TokenRow]]:
        """(sample, row) of every position where the candidate prefers another token."""
        return [(i, row) for i, sample in enumerate(self.rows) for row in sample if row.ours != row.theirs]

    @property
    def same(self) -> bool:
        """Whether both generate the same tokens."""
        return not self.different

    @property
    def near_ties(self) -> int:
        """The differing positions that rounding explains: the margin is within the typical error."""
        return sum(row.near_tie for _, row in self.different)

    @property
    def ok(self) -> bool:
        """Whether the scores are within the budget, and near ties explain every difference."""
        return self.error <= self.budget and self.near_ties == len(self.different)

    def __repr__(self) -> str:
        total = sum(map(len, self.rows))
        text = f"{total - len(self.different)} of {total} generated tokens are the same"
        if not self.same:
            text += f", {self.near_ties} differ in a near tie"
        if self.near_ties < len(self.different):
            text += f", {len(self.different) - self.near_ties} differ WITHOUT a near tie"
        peer = "" if self.peer is None else f", same dtype on the CPU {self.peer:.1e}"
        verdict = "" if self.error <= self.budget else ": TOO LARGE, a layer is wrong: climb"
        text += f"\nscores ≈ relative error {self.error:.1e}, budget {self.budget:.1e}{peer}{verdict}"
        if self.same:
            return text
        head = ("sample", "token", "candidate", "reference", "margin", "error", "")
        body = [
            [str(sample), str(r.position), self._name(r.ours), self._name(r.theirs), f"{r.margin:.3g}",
             f"{r.error:.3g}", "near tie" if r.near_tie else "NOT a near tie"]
            for sample, r in self.different[:SHOWN]
        ]  # fmt: skip
        return f"{text}\n{text_table(head, body, 4)}"

    def _name(self, token: int) -> str:
        return repr(self.names[token]) if token in self.names else str(token)


@torch.no_grad()
def compare_generated(
    reference: nn.Module,
    candidate: nn.Module,
    inputs: Mapping,
    max_new_tokens: int = 32,
    tokenizer=None,
    three_way: bool = True,
    **options,
) -> Generated:
    """Generate greedily with both and compare token by token, each given the reference's text before it.

    Args:
        reference, candidate: models of transformers (with `generate`), on any device, in any dtype.
        inputs: those of `generate`, one or more samples: a dict or a processor's BatchFeature, on any device.
        tokenizer: to show tokens as text.
        three_way: run a copy of the reference in the candidate's dtype on the CPU too. The budget is then
            FACTOR times its error, and at most the tolerance of a whole network (device/tolerances.py).
        options: of `generate`, for both, such as no_repeat_ngram_size.

    Raises ValueError if the model has no `generate` or generates nothing, RuntimeError if it mixes devices.
    """
    if not callable(getattr(reference, "generate", None)):
        raise ValueError(f"{type(reference).__name__} has no generate(): compare its outputs with climb")
    theirs = _Steps()
    _generate(reference, inputs, theirs, max_new_tokens, options)
    if not theirs.scores:
        raise ValueError(f"{type(reference).__name__} generated no token: raise max_new_tokens")
    tokens = torch.stack([scores.argmax(-1) for scores in theirs.scores], 1)
    ends = _ends(reference, tokens)
    ours = _Steps(tokens)
    _generate(candidate, inputs, ours, max_new_tokens, options)
    rows = [list(_rows(ours, theirs, sample, end)) for sample, end in enumerate(ends)]
    (_, dtype), (_, base) = place_of(candidate), place_of(reference)
    limits, peer = tolerance(dtype), None
    budget = limits.network
    if three_way and dtype != base:
        same = _Steps(tokens)
        _generate(
            port_module(reference, torch.device("cpu"), dtype).module, inputs, same, max_new_tokens, options
        )
        peer = _error(same, theirs, ends)
        budget = min(limits.network, max(limits.block, FACTOR * peer))
    names = {}
    if tokenizer is not None:
        pairs = [(r.ours, r.theirs) for sample in rows for r in sample if r.ours != r.theirs]
        names = {token: tokenizer.decode([token]) for pair in pairs for token in pair}
    return Generated(rows, tokens, _error(ours, theirs, ends), budget, peer, names)


class _Steps:
    """A logits processor: keeps the scores of every step, and forces given tokens."""

    def __init__(self, forced: Tensor | None = None):
        self.scores: list[Tensor] = []
        self.forced = forced  # (b, n) token ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.scores)
        self.scores.append(scores.float().cpu())
        if self.forced is None or step >= self.forced.shape[1]:
            return scores
        wanted = self.forced[:, step, None].to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, wanted, 0.0)


def _generate(model: nn.Module, inputs: Mapping, steps: _Steps, max_new_tokens: int, options: dict) -> None:
    where, dtype = place_of(model)
    given = move_to(inputs, where, dtype)
    try:
        generate: Any = model.generate
        generate(
            **given,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=[steps],
            **options,
        )
    except RuntimeError as error:
        clear = explained(error, model, where)
        if clear is None:
            raise
        raise clear from error


def _ends(model: nn.Module, tokens: Tensor) -> list[int]:
    """The number of tokens of each sample up to its end token; what follows is padding."""
    config = getattr(model, "generation_config", None)
    end = getattr(config, "eos_token_id", None)
    stops = set(end if isinstance(end, (list, tuple)) else [] if end is None else [end])
    return [
        next((i + 1 for i, token in enumerate(sample) if token in stops), len(sample))
        for sample in tokens.tolist()
    ]


def _error(ours: _Steps, theirs: _Steps, ends: list[int]) -> float:
    """The relative error of all scores, without the suppressed tokens (-inf) and the padding."""
    pairs = [
        (a[sample], b[sample])
        for sample, end in enumerate(ends)
        for a, b in zip(ours.scores[:end], theirs.scores[:end], strict=False)
    ]
    if len(ours.scores) < max(ends):
        return torch.inf  # it stopped early
    mine, expected = (torch.cat(each) for each in zip(*pairs, strict=True))
    used = expected.isfinite()
    return relative_error(mine[used], expected[used])


def _rows(ours: _Steps, theirs: _Steps, sample: int, end: int) -> Iterator[TokenRow]:
    for i, (mine, expected) in enumerate(zip(ours.scores[:end], theirs.scores[:end], strict=False)):
        a, b = mine[sample], expected[sample]
        finite = a.isfinite() & b.isfinite()  # suppressed tokens are -inf in both
        away = (a - b).abs()[finite]
        best = b.topk(2).values
        yield TokenRow(
            i,
            int(b.argmax()),
            int(a.argmax()),
            int(b.argmax()),
            float(best[0] - best[1]),
            float(away.max()) if len(away) else torch.inf,
            float(away.median()) if len(away) else torch.inf,
        )
