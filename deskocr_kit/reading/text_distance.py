"""Distances between a text and the true text."""

from __future__ import annotations

import unicodedata

NORMALISATION = "NFC; blanks at line ends and empty lines at either end are left out; all else counts"


def normalise(text: str) -> str:
    """The text that is compared: NFC, without blanks at line ends and empty lines at either end."""
    lines = [line.rstrip() for line in unicodedata.normalize("NFC", text).replace("\r\n", "\n").split("\n")]
    return "\n".join(lines).strip("\n")


def edits(text: str, truth: str) -> tuple[int, int]:
    """Levenshtein distance over characters, and the length of the truth; both after `normalise`."""
    from rapidfuzz.distance import Levenshtein

    text, truth = normalise(text), normalise(truth)
    return Levenshtein.distance(text, truth), len(truth)


def cer(text: str, truth: str) -> float:
    """Character error rate: edits / length of the truth. May exceed 1; an empty truth counts as length 1."""
    distance, length = edits(text, truth)
    return distance / max(1, length)


def ned(text: str, truth: str) -> float:
    """Normalised edit distance, 0 to 1: edits / length of the longer of both, after `normalise`."""
    distance, length = edits(text, truth)
    return distance / max(1, length, len(normalise(text)))
