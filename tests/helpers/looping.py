"""Answers that loop as the model does under the n-gram guard, and texts of pages that do not."""

from __future__ import annotations

import random
import re

from model.ngram import NgramGuard
from model.official import DEEPSEEK_OCR

GUARD = DEEPSEEK_OCR.no_repeat_ngram_size
NEW = 5000  # ids from here are in no text


class Words:
    """Numbers words, groups of up to three digits, blanks and signs, about as the official tokenizer does."""

    pattern = r"<\|?/?\w+\|?>|\d{1,3}| ?[A-Za-z]+|[^\x00-\x7f]|\s|[^\sA-Za-z\d]"

    def __init__(self):
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        return [self.ids.setdefault(part, 10 + len(self.ids)) for part in re.findall(self.pattern, text)]


class Characters(Words):
    """Numbers characters and tags, as nano's tokenizer does."""

    pattern = r"<\|?/?\w+\|?>|[\s\S]"


def under_the_guard(unit: list[int], length: int, when_banned: str, seed: int = 0) -> list[int]:
    """`length` ids of a decoder that repeats `unit` for ever, and yields where the guard bans its token.

    when_banned: "new", "of the unit", "insert" or "skip".
    """
    random_ = random.Random(seed)
    guard, ids, at = NgramGuard(GUARD), [], 0
    while len(ids) < length:
        token, banned = unit[at % len(unit)], guard.banned()
        at += 1
        if token in banned:
            token = NEW + len(ids)
            if when_banned == "of the unit":
                token = random_.choice([each for each in set(unit) if each not in banned] or [token])
            elif when_banned == "insert":
                at -= 1
            elif when_banned == "skip" and unit[at % len(unit)] not in banned:
                token = unit[at % len(unit)]
                at += 1
        ids.append(token)
        guard.append(token)
    return ids


ONE = "The quick brown fox jumps over the lazy dog near the river.\n"
TWO = "Payment is due within thirty days of the invoice date.\n"
BOX = "<|ref|>text<|/ref|><|det|>[[100, {}, 900, {}]]<|/det|>\n"
NAMES = "Alice Bob Carol Dave Erin Frank Grace Heidi Ivan Judy Mallory Niaj Olivia Peggy Rupert Sybil".split()

#: Texts as a model in a loop writes them.
LOOPING = {
    "one line": ONE * 20,
    "two lines in turn": (ONE + TWO) * 8,
    "one character changed": "".join(ONE.replace("fox", f"bo{chr(97 + i)}") for i in range(16)),
    "numbered": "".join(f"{i}. The same item of the list again.\n" for i in range(1, 21)),
    "boxes that count up": "".join(BOX.format(20 + 20 * i, 38 + 20 * i) for i in range(30)),
    "boxes with text": "".join(
        f"{BOX.format(20 + 20 * i, 38 + 20 * i)}The same line.\n\n" for i in range(20)
    ),
    "one row": "<table>" + "<tr><td>Total</td><td>100.00</td><td>EUR</td></tr>" * 40,
    "empty cells": "<table><tr>" + "<td></td>" * 600,
}


def ordinary() -> dict[str, str]:
    """Texts of pages with much that repeats and no loop."""
    r = random.Random(3)
    cells = lambda make, n: "".join(f"<td>{make()}</td>" for _ in range(n))  # noqa: E731
    return {
        "counted": "\n".join(map(str, range(1, 301))),
        "four digits": "\n".join(map(str, range(1001, 1301))),
        "prices": "\n".join(f"{r.randrange(1, 2000) / 100:.2f}" for _ in range(200)),
        "dates": "\n".join(f"2024-{m:02d}-{d:02d}" for m in range(1, 13) for d in range(1, 29)),
        "times": "\n".join(f"{h:02d}:{m:02d}" for h in range(24) for m in (0, 15, 30, 45)),
        "numbers in cells": "".join(
            f"<tr>{cells(lambda: r.randrange(1, 100000) / 10, 6)}</tr>" for _ in range(40)
        ),
        "digits in cells": "".join(f"<tr>{cells(lambda: r.randrange(10), 8)}</tr>" for _ in range(40)),
        "bits in cells": "".join(f"<tr>{cells(lambda: r.randrange(2), 8)}</tr>" for _ in range(40)),
        "markdown": "| a | b | c |\n|---|---|---|\n"
        + "".join(
            f"| {r.randrange(999) / 10} | {r.randrange(999)} | {r.choice(NAMES)} |\n" for _ in range(80)
        ),
        "wide ruler": "|" + " h |" * 12 + "\n|" + "---|" * 12 + "\n",
        "empty form": "<table>" + ("<tr>" + "<td></td>" * 10 + "</tr>") * 12 + "</table>",
        "same cells": "".join(
            f"<tr><td>{r.choice(NAMES)}</td><td>Berlin</td><td>Germany</td></tr>" for _ in range(30)
        ),
        "contents": "\n".join(f"Chapter {i} {'.' * 40} {7 * i}" for i in range(1, 30)),
        "lines to fill in": "".join(f"{name}: {'_' * 30}\n" for name in NAMES),
        "invoice": "".join(
            f"{i} {r.choice(NAMES)} {r.randrange(9)} pcs {r.randrange(9999) / 100:.2f} EUR\n"
            for i in range(60)
        ),
        "boxes": "".join(
            f"{BOX.format(20 + 30 * i, 45 + 30 * i)}{' '.join(r.choice(NAMES) for _ in range(8))}.\n\n"
            for i in range(30)
        ),
        "refrain": "".join(
            "".join(" ".join(r.choice(NAMES) for _ in range(6)) + "\n" for _ in range(4)) + ONE
            for _ in range(11)
        ),
        "hex": "\n".join(" ".join(f"{r.randrange(256):02x}" for _ in range(16)) for _ in range(60)),
    }
