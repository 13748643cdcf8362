"""Grounding of Unlimited-OCR: `<|det|>type [x1, y1, x2, y2]<|/det|>text`, with coordinates from 0 to 999.

The text of a box goes on to the next box, to `<PAGE>` or to the end. boxes.py calls `typed_boxes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# The type is a word or a few; it may not contain what begins a list of boxes or a tag.
_TYPED = re.compile(
    r"<\|det\|>\s{0,9}([^\s\[\]<|][^\[\]<|\n]{0,60}?)[ \t]{0,9}(\[[^\[\]<|]{0,120}\])<\|/det\|>"
)


def typed_boxes(text: str) -> Iterator[re.Match]:
    """A match per box, in order: group 1 is the type, group 2 the four numbers in brackets.

    A list of boxes of DeepSeek-OCR (`<|det|>[[…]]<|/det|>`) begins with a bracket and does not match.
    """
    return _TYPED.finditer(text)
