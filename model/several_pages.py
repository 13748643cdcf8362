"""Several pages in one prompt: their answer is one text, with a mark between the pages.

Unlimited-OCR writes `<PAGE>` before or between the pages.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .inference import Reading

PAGE_MARK = "<PAGE>"
Span = tuple[int, int]


def page_spans(text: str, count: int) -> list[Span]:
    """The characters of each of `count` pages, without marks and surrounding space.

    Text before the first mark is a page of its own, unless it is blank. Pieces beyond `count` belong to the
    last page; pages that the text does not have are empty.
    """
    marks = [match.span() for match in re.finditer(re.escape(PAGE_MARK), text)]
    starts = [0, *(end for _, end in marks)]
    ends = [*(start for start, _ in marks), len(text)]
    pieces = list(zip(starts, ends, strict=True))
    if len(pieces) > 1 and not text[: pieces[0][1]].strip():
        pieces.pop(0)
    if len(pieces) > count:
        pieces[count - 1 :] = [(pieces[count - 1][0], pieces[-1][1])]
    pieces += [(len(text), len(text))] * (count - len(pieces))
    return [_stripped(text, *piece) for piece in pieces]


def split_pages(text: str, count: int) -> list[str]:
    """The text of each of `count` pages, see `page_spans`."""
    return [text[start:end] for start, end in page_spans(text, count)]


def by_page(reading: Reading, tokenizer, count: int) -> list[Reading]:
    """One Reading per page. A token belongs to the page in which it starts, a mark to the page before it.

    `truncated` is that of the whole answer for its last page and for pages without text, and False for the
    pages before.
    """
    spans = page_spans(reading.text, count)
    owners = []
    for start, _ in reading.spans:
        owners.append(max((k for k, (first, _) in enumerate(spans) if first <= start), default=0))
    last = max(owners, default=0)
    made = []
    for k, (start, end) in enumerate(spans):
        mine = [i for i, owner in enumerate(owners) if owner == k]
        ids = [reading.ids[i] for i in mine]
        made.append(
            replace(
                reading,
                text=reading.text[start:end],
                raw=tokenizer.decode(ids, skip_special_tokens=False),
                ids=ids,
                image_tokens=reading.image_tokens // count,
                truncated=reading.truncated and k >= last,
                seconds=reading.seconds * len(ids) / max(1, len(reading.ids)),
                logprobs=[reading.logprobs[i] for i in mine],
                spans=[_inside(reading.spans[i], start, end) for i in mine],
            )
        )
    return made


def _stripped(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return (start + left, start + left + len(piece.strip())) if piece.strip() else (end, end)


def _inside(span: Span, start: int, end: int) -> Span:
    return min(max(span[0] - start, 0), end - start), min(max(span[1] - start, 0), end - start)
