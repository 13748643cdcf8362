"""Teacher forcing: both models read the same text and predict the next token at every position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from model.generation import Prompt, whole_pass

from ..display.table import text_table
from .metrics import Closeness, closeness
from .show import html_table
from .trace import move_to, where


@dataclass(frozen=True)
class TokenRow:
    """One position: the token of the text, the best token of each model, and the margin of the reference.

    margin: the reference's best logit minus its second. error: the largest difference of a logit here.
    typical: the median difference.
    """

    position: int
    given: int
    ours: int
    theirs: int
    margin: float
    error: float
    typical: float

    @property
    def near_tie(self) -> bool:
        """Whether the margin is within the typical error, so that rounding decides and not a fault."""
        return self.margin <= 6 * self.typical


@dataclass
class Forced:
    """Result of `teacher_forced`.

    top1: share of positions with the same best token. top5: share of positions where the reference's best is
    among the candidate's five best. overlap: mean share of common tokens among the five best. first: first
    position with another best token, counted from the first new token, or None.
    """

    top1: float
    top5: float
    overlap: float
    logits: Closeness
    rows: list[TokenRow]
    names: dict[int, str] = field(default_factory=dict)

    @property
    def first(self) -> TokenRow | None:
        return next((r for r in self.rows if r.ours != r.theirs), None)

    @property
    def near_ties(self) -> int:
        """Differing positions that were near ties."""
        return sum(r.ours != r.theirs and r.near_tie for r in self.rows)

    def _lines(self) -> list[str]:
        lines = [
            f"teacher-forced ≈ {len(self.rows)} positions: top-1 {self.top1:.2%}, reference's best in top-5 "
            f"{self.top5:.2%}, top-5 overlap {self.overlap:.2%}, {self.logits}"
        ]
        if self.first is not None:
            r = self.first
            lines.append(
                f"first divergence ≈ token {r.position}: {self._name(r.ours)}, reference "
                f"{self._name(r.theirs)}, margin {r.margin:.3g}, error {r.error:.3g}"
                + (" (a near tie)" if r.near_tie else "")
            )
        return lines

    def _name(self, token: int) -> str:
        return repr(self.names[token]) if token in self.names else f"token id {token}"

    def _table(self):
        rows = [
            [
                "WRONG",
                str(r.position),
                self._name(r.ours),
                self._name(r.theirs),
                f"{r.margin:.3g}",
                f"{r.error:.3g}",
            ]
            for r in self.rows
            if r.ours != r.theirs
        ][:20]
        return ("verdict", "position", "candidate", "reference", "margin", "error"), rows

    def __repr__(self) -> str:
        head, rows = self._table()
        return "\n".join([*self._lines(), *([text_table(head, rows, 0)] if rows else [])])

    def _repr_html_(self) -> str:
        from html import escape

        head, rows = self._table()
        return f"<p>{'<br>'.join(map(escape, self._lines()))}</p>" + (
            html_table(head, rows, 0) if rows else ""
        )


@torch.no_grad()
def teacher_forced(reference, candidate, inputs: dict, new_ids: Sequence[int], tokenizer=None) -> Forced:
    """Compare the logits of both models for each of `new_ids`, given the prompt and the ids before it.

    Args:
        inputs: those of forward, batch 1.
        new_ids: at least one token id.
        tokenizer: to show tokens as text.

    Raises:
        ValueError: an empty text, or more than one sample.
    """
    if len(inputs["input_ids"]) != 1 or not len(new_ids):
        raise ValueError("teacher_forced takes one sample and at least one new token")
    new = torch.as_tensor(list(new_ids))
    full = extended(inputs, new[:-1])
    prompt = inputs["input_ids"].shape[1]
    ours, theirs = (
        logits_of(model, move_to(full, *where(model, model)), prompt, len(new))[0].float().cpu()
        for model in (candidate, reference)
    )
    best = theirs.topk(2, -1)
    five_ours, five_theirs = ours.topk(5, -1).indices, theirs.topk(5, -1).indices
    chosen, expected = ours.argmax(-1), best.indices[:, 0]
    margins, away = best.values[:, 0] - best.values[:, 1], (ours - theirs).abs()
    errors, typical = away.amax(-1), away.median(-1).values
    rows = [
        TokenRow(
            i,
            int(new[i]),
            int(chosen[i]),
            int(expected[i]),
            float(margins[i]),
            float(errors[i]),
            float(typical[i]),
        )
        for i in range(len(new))
    ]
    names = {}
    if tokenizer is not None:
        names = {t: tokenizer.decode([t]) for r in rows if r.ours != r.theirs for t in (r.ours, r.theirs)}
    common = (five_ours[:, :, None] == five_theirs[:, None, :]).any(-1).float().mean().item()
    in_five = (five_ours == expected[:, None]).any(-1).float().mean().item()
    return Forced(
        (chosen == expected).float().mean().item(), in_five, common, closeness(ours, theirs), rows, names
    )


def logits_of(model, full: dict, prompt: int, last: int) -> Tensor:
    """The last logits of one pass; a model with a sliding window sees what it sees while it generates."""
    if getattr(getattr(getattr(model, "config", None), "decoder", None), "window", None) is not None:
        return whole_pass(model, Prompt(**full), prompt, last)
    return model(**full, logits_to_keep=last).logits


def extended(inputs: dict, new: Tensor) -> dict:
    """The inputs of forward with `new` ids (k,) appended to the prompt."""
    full, k = dict(inputs), len(new)
    full["input_ids"] = torch.cat((inputs["input_ids"], new[None].to(inputs["input_ids"])), 1)
    for name, value in (("images_seq_mask", 0), ("attention_mask", 1)):
        if full.get(name) is not None:
            full[name] = F.pad(full[name], (0, k), value=value)
    return full
