"""Grounding: parse `<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>` in the model's text.

The other grammar of the family, `<|det|>type [x1, y1, x2, y2]<|/det|>`, is in typed_boxes.py.

The original passes this text to `eval`, so that a page could make it run code. Here the text is parsed as
data: anything except four numbers in brackets is reported and dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .typed_boxes import typed_boxes

MAX_BOXES = 5000  # of one text: the official model writes at most 8192 tokens, some twelve for each box
MAX_PROBLEMS = 20  # of one match; the others are counted
SCALE = 999  # the model's coordinates: 0 = left or top edge, 999 = right or bottom edge

# The original's pattern, except that neither part may extend over the next opening tag. After an unclosed tag
# the original swallows all text up to the next complete one.
_REF = re.compile(
    r"<\|ref\|>((?:(?!<\|ref\|>).)*?)<\|/ref\|><\|det\|>((?:(?!<\|ref\|>|<\|det\|>).)*?)<\|/det\|>", re.DOTALL
)
_NUMBER = re.compile(r"[-+]?\d{1,9}(\.\d{1,9})?")
_GROUP = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Ref:
    """One grounding match. boxes: (x1, y1, x2, y2) in 0..999, inside the page, x1 < x2 and y1 < y2."""

    label: str
    boxes: list[tuple[float, float, float, float]]
    span: tuple[int, int]  # position of the match in the text
    raw: str  # the text between <|det|> and <|/det|>
    problems: list[str]  # what was corrected or dropped
    places: list[tuple[int, int]] = field(default_factory=list)  # position of each box in the text

    @property
    def is_image(self) -> bool:
        """Whether this is a figure, which is cropped and shown in the markdown."""
        return self.label == "image"


def parse_boxes(text: str) -> list[Ref]:
    """All grounding matches of a text, in order. Never raises on content and never evaluates it.

    Linear in the length of the text. The first MAX_BOXES boxes are kept; the match of a box beyond them
    states this in its problems.
    """
    refs: list[Ref] = []
    left = MAX_BOXES
    for match in _REF.finditer(text):
        boxes, problems, places = _parse_list(match[2])
        if len(boxes) > left:
            problems.append(f"{len(boxes) - left:,} {OVER}")
            boxes, places = boxes[:left], places[:left]
        left -= len(boxes)
        places = [(match.start(2) + start, match.start(2) + end) for start, end in places]
        refs.append(Ref(match[1], boxes, match.span(), match[2], problems, places))
    return with_typed_boxes(text, refs, left)


def with_typed_boxes(text: str, refs: list[Ref], left: int = MAX_BOXES) -> list[Ref]:
    """The refs, and those in the grammar of Unlimited-OCR (typed_boxes.py), in the order of the text."""
    typed = []
    for match in typed_boxes(text):
        boxes, problems, places = _parse_list(match[2])
        if len(boxes) > left:
            problems.append(f"{len(boxes) - left:,} {OVER}")
            boxes, places = boxes[:left], places[:left]
        left -= len(boxes)
        places = [(match.start(2) + start, match.start(2) + end) for start, end in places]
        typed.append(Ref(match[1], boxes, match.span(), match[2], problems, places))
    return sorted([*refs, *typed], key=lambda ref: ref.span) if typed else refs


#: Of a problem: boxes that `parse_boxes` left out.
OVER = f"boxes left out, a page has more than {MAX_BOXES:,}"


def left_out(refs: Iterable[Ref]) -> list[str]:
    """What `parse_boxes` left out, one line ([]: nothing)."""
    over = [p for ref in refs for p in ref.problems if p.endswith(OVER)]
    boxes = sum(int(p.split()[0].replace(",", "")) for p in over)
    return [f"{boxes:,} {OVER}"] if over else []


def to_pixels_box(box, width: int, height: int) -> tuple[int, int, int, int]:
    """Convert 0..999 to pixels of a width x height page: int(v / 999 * side), as in the original."""
    x1, y1, x2, y2 = box
    return (
        int(x1 / SCALE * width),
        int(y1 / SCALE * height),
        int(x2 / SCALE * width),
        int(y2 / SCALE * height),
    )


def crop_box(box, width: int, height: int) -> tuple[int, int, int, int]:
    """`to_pixels_box`, limited to the page and at least one pixel in size, so that it can be cropped."""
    x1, y1, x2, y2 = to_pixels_box(box, width, height)
    x1, y1 = min(x1, width - 1), min(y1, height - 1)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def _parse_list(raw: str):
    """Parse the text of a box list -> (boxes, problems, position of each box in the text)."""
    plain = raw.replace("(", "[").replace(")", "]")
    boxes, problems, places = [], [], []
    for number, group in enumerate(_GROUP.finditer(plain), 1):
        box, problem = _parse_box(group[1])
        if box:
            boxes.append(box)
            places.append(group.span())
        if problem:
            problems.append(f"box {number} [{_short(group[1])}]: {problem}")
    rest = _GROUP.sub("", plain).strip(" \t\r\n,[]")
    if rest:
        problems.append(f"text beside the boxes ignored: {_short(rest)}")
    if not boxes and not problems:
        problems.append("no box in the list")
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"{len(problems) - MAX_PROBLEMS:,} more problems"]
    return boxes, problems, places


def _parse_box(group: str):
    """Parse the text inside one pair of brackets -> (box or None, problem or "")."""
    parts = [part.strip() for part in group.split(",")]
    if len(parts) == 5 and not parts[4]:
        parts.pop()  # a trailing comma
    if len(parts) != 4:
        return None, f"{len(parts)} values instead of 4, left out"
    if not all(_NUMBER.fullmatch(part) for part in parts):
        return None, "not four plain numbers, left out"
    values = [float(part) if "." in part else int(part) for part in parts]
    inside = [min(max(value, 0), SCALE) for value in values]
    problems = [] if inside == values else ["outside 0..999, clipped"]
    x1, y1, x2, y2 = inside
    if x1 > x2 or y1 > y2:
        problems.append("corners in the wrong order, swapped")
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if x1 == x2 or y1 == y2:
        return None, ", ".join([*problems, "no area, left out"])
    return (x1, y1, x2, y2), ", ".join(problems)


def _short(text: str, limit: int = 40) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."
