"""Edit distance and normalisation, on which CER and NED depend."""

from __future__ import annotations

import pytest

from deskocr_kit.reading.text_distance import cer, edits, normalise


@pytest.mark.parametrize(
    ("text", "truth", "rate"),
    [
        ("abc", "abc", 0.0),
        ("abd", "abc", 1 / 3),
        ("", "abcd", 1.0),
        ("abcd", "", 4.0),  # an empty truth counts as one character
        ("ab  \ncd \n", "ab\ncd", 0.0),  # blanks at line ends are ignored
        ("\n\nab", "ab", 0.0),
        ("a b", "ab", 0.5),  # blanks inside a line count
        ("AB", "ab", 1.0),  # case counts
        ("e\u0301", "\u00e9", 0.0),  # one letter, two encodings
    ],
)
def test_cer(text, truth, rate):
    assert cer(text, truth) == pytest.approx(rate)


def test_edits_give_counts_for_summing():
    assert edits("kitten", "sitting") == (3, 7)


def test_normalise_keeps_inner_empty_lines():
    assert normalise("a\r\n\r\nb\n") == "a\n\nb"
