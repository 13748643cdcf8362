"""The kit's own metric for a page with text blocks in a known order. It is not the benchmark's scorer.

Each true block is compared with the stretch of the prediction that is most like it and that no other block
has taken, longest block first. Where the model puts line and paragraph breaks therefore does not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

METRIC = (
    "deskocr block NED: mean normalised edit distance (edits / longer length, 0 is best) between each true "
    "text block and the most similar stretch of the prediction; NFC, blanks collapsed; not the metric of the "
    "official scorer"
)
#: Tables, display formulas, pictures. A part ends where the next of its kind begins, so that a beginning
#: without an end costs no more than the text up to there; nested ones go in several passes.
_DROPPED = (
    re.compile(r"<table\b(?:(?!</?table\b).)*</table>", re.S | re.I),
    re.compile(r"\$\$(?:(?!\$\$).)*\$\$|\\\[(?:(?!\\[\[\]]).)*\\\]", re.S),
    re.compile(r"\\begin\{(\w{1,40}\*?)\}(?:(?!\\(?:begin|end)\{).)*\\end\{\1\}", re.S),
    re.compile(r"!\[[^\[\]\n]*\]\([^()\n]*\)"),
    re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.M),
)
_DEPTH = 8  # of parts in parts
_MARKS = re.compile(r"^\s{0,3}(#{1,6}|>|[*+-])\s+|\*\*|__|</?(center|b|i|sup|sub)>", re.M | re.I)


def plain(markdown: str) -> str:
    """Markdown as text: without tables, display formulas, pictures and marks; blanks collapsed."""
    for pattern in _DROPPED:
        for _ in range(_DEPTH):
            markdown, found = pattern.subn("\n", markdown)
            if not found:
                break
    return collapsed(_MARKS.sub("", markdown))


def collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


@dataclass(frozen=True)
class PageScore:
    """blocks: the NED of each true block, in the order of the truth. page: of the whole text."""

    blocks: tuple[float, ...]
    page: float


def score_page(prediction: str, truth: Sequence[str]) -> PageScore:
    """Score the markdown of a page against its true text blocks. Empty blocks are left out."""
    rest = plain(prediction)
    wanted = [text for text in map(collapsed, truth) if text]
    whole = distance(rest, " ".join(wanted))
    found: dict[int, float] = {}
    for i in sorted(range(len(wanted)), key=lambda i: -len(wanted[i])):
        start, end = stretch(wanted[i], rest)
        found[i] = distance(rest[start:end], wanted[i])
        rest = rest[:start] + "\n" * (end > start) + rest[end:]  # what is taken serves no other block
    return PageScore(tuple(found[i] for i in range(len(wanted))), whole)


def stretch(block: str, text: str) -> tuple[int, int]:
    """(start, end) of the part of the text that is most like the block."""
    from rapidfuzz.fuzz import partial_ratio_alignment

    if len(text) <= len(block):
        return 0, len(text)
    found = partial_ratio_alignment(block, text)
    return (found.dest_start, found.dest_end) if found is not None else (0, 0)


def distance(text: str, truth: str) -> float:
    """Edits / length of the longer text; 0 for two empty texts."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.normalized_distance(text.strip(), truth)
