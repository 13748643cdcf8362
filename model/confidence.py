"""How sure the model was: token probabilities, averaged per line, box, table cell and page.

The value of a token is its softmax probability over the whole vocabulary, before the n-gram guard and
suppressed tokens change the choice: it is the model's own opinion of what was written. The value of anything
larger is the geometric mean of its tokens, exp(mean(log p)): the probability of the text, as a rate per
token, so that long and short texts compare.

What is averaged:

    line    the tokens of its characters and of the line break that ends it, except tags and numbers of boxes.
            The break counts because a line that ends too early or too late shows there.
    box     two values. `text`: the tokens of the label and of the text up to the next box, which is what the
            box frames. `place`: the tokens of its four numbers and their brackets.
    cell    the tokens of its content. An empty cell has no value (None).
    page    all tokens, with the end token, except the tags and numbers of boxes. The end token counts because
            a page that ends too early shows there. Tags are certain and numbers are not: a box that is one
            pixel wider is as right, so several numbers share the probability. Both say nothing about the
            text. Tags of tables count: they are part of the text.

A byte-level tokenizer may end a token in the middle of a character. Then the character belongs to all tokens
that hold a part of it, and each of them counts. A token counts for every line or cell that it touches.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from .boxes import Ref, parse_boxes

DIGITS = 4  # of the confidences in records
UNSURE = 0.8  # boxes below it are drawn dashed and hatched: a convention, not a claim about errors
_HELD = 16  # tokens; a character has 4 bytes, so more undecodable tokens are no part of a character
_OPEN = len("<|ref|>")

Span = tuple[int, int]  # first character and the one after the last


def geometric_mean(logprobs: Iterable[float]) -> float | None:
    """exp(mean) of natural log-probabilities; None if there are none."""
    values = list(logprobs)
    return math.exp(math.fsum(values) / len(values)) if values else None


def token_spans(tokenizer, ids: Sequence[int]) -> list[Span]:
    """The characters of each token in the decoded text.

    Tokens that only together form whole characters share one span.

    Args:
        tokenizer: has `.decode(ids, skip_special_tokens=False)`; the joined texts of parts are the text.
    """
    spans: list[Span] = []
    known: dict[int, str] = {}  # token -> text, if it is whole characters
    held: list[int] = []
    at = 0
    for token in ids:
        held.append(token)
        piece = known.get(token) if len(held) == 1 else None
        if piece is None:
            piece = tokenizer.decode(held, skip_special_tokens=False)
            if piece.endswith("\ufffd") and len(held) < _HELD:
                continue
            if len(held) == 1:
                known[token] = piece
        spans += [(at, at + len(piece))] * len(held)
        at, held = at + len(piece), []
    if held:
        piece = tokenizer.decode(held, skip_special_tokens=False)
        spans += [(at, at + len(piece))] * len(held)
    return spans


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of the tokens of one text.

    Args:
        text: the text of a reading, without the end token.
        logprobs: natural log-probability of each token, the end token included.
        spans: the characters of each token in `text`, in order; the end token has none, (n, n).
    """

    text: str
    logprobs: Sequence[float]
    spans: Sequence[Span]

    @classmethod
    def of(cls, tokenizer, ids: Sequence[int], end: int, logprobs: Sequence[float]) -> Scores:
        """The scores of a stripped reading. ids: the new tokens, with or without the end token `end`."""
        written = [i for i in ids if i != end]
        whole = tokenizer.decode(written, skip_special_tokens=False)
        text = whole.strip()
        shift, n = len(whole) - len(whole.lstrip()), len(text)
        inside = iter(token_spans(tokenizer, written))
        spans, last = [], 0
        for token in ids:
            start, last = (last, last) if token == end else next(inside)
            spans.append((min(max(start - shift, 0), n), min(max(last - shift, 0), n)))
        return cls(text, list(logprobs), spans)

    @cached_property
    def refs(self) -> list[Ref]:
        """The boxes in the text."""
        return parse_boxes(self.text)

    @cached_property
    def tokens(self) -> list[float]:
        """The probability of each token."""
        return [math.exp(value) for value in self.logprobs]

    @cached_property
    def page(self) -> float | None:
        """Geometric mean over all tokens except tags and numbers of boxes; None if there is no token."""
        return geometric_mean(v for v, mark in zip(self.logprobs, self._markup, strict=True) if not mark)

    def over(self, *spans: Span, markup: bool = False) -> float | None:
        """Geometric mean over the tokens that touch one of these pieces of the text; None if none does.

        markup: count tags and numbers of boxes too.
        """
        chosen: set[int] = set()
        for start, end in spans:
            first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
            chosen.update(i for i in range(first, last) if self._starts[i] < self._ends[i])
        return geometric_mean(self.logprobs[i] for i in sorted(chosen) if markup or not self._markup[i])

    def lines(self) -> list[tuple[str, float | None]]:
        """(text, value) of each line that is not blank. The text is without tags and numbers of boxes."""
        made, start = [], 0
        for line in self.text.split("\n"):
            end = start + len(line)
            shown = "".join(c for c, mark in zip(line, self._marked[start:end], strict=True) if not mark)
            if shown.strip():
                made.append((shown, self.over((start, end + 1))))
            start = end + 1
        return made

    def boxes(self) -> list[list[tuple[float | None, float | None]]]:
        """Per ref of the text and box of the ref: (text, place), see the head of this file."""
        ends = [ref.span[0] for ref in self.refs] + [len(self.text)]
        made = []
        for ref, end in zip(self.refs, ends[1:], strict=True):
            text = self.over(_label(ref), (ref.span[1], end))
            made.append([(text, self.over(place, markup=True)) for place in ref.places])
        return made

    def record(self) -> dict:
        """The entries of a JSON record: page, lines and tokens. Values are rounded to 4 digits.

        token_spans holds the characters [start, end) in `text` of each token.
        """
        return {
            "confidence": rounded(self.page),
            "lines": [{"text": text, "confidence": rounded(value)} for text, value in self.lines()],
            "token_confidences": [rounded(value) for value in self.tokens],
            "token_spans": [list(span) for span in self.spans],
        }

    @cached_property
    def _starts(self) -> list[int]:
        return [start for start, _ in self.spans]

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end in self.spans]

    @cached_property
    def _marked(self) -> list[bool]:
        """Per character: whether it belongs to a tag or number of a box."""
        marked = [False] * len(self.text)
        for ref in self.refs:
            (start, end), (first, last) = ref.span, _label(ref)
            marked[start:first] = [True] * (first - start)
            marked[last:end] = [True] * (end - last)
        return marked

    @cached_property
    def _markup(self) -> list[bool]:
        """Per token: whether all of its characters belong to tags and numbers of boxes."""
        return [start < end and all(self._marked[start:end]) for start, end in self.spans]


def rounded(value: float | None) -> float | None:
    """A value as records hold it."""
    return None if value is None else round(value, DIGITS)


def _label(ref: Ref) -> Span:
    first = ref.span[0] + _OPEN
    return first, first + len(ref.label)
