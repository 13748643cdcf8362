"""Text from files cannot control a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.display.printable import printable


def test_escape_sequences_are_shown_not_obeyed():
    assert printable("\x1b]0;title\x07 \x1b[2J\x9b31m") == r"\x1b]0;title\x07 \x1b[2J\x9b31m"


def test_text_that_reverses_or_hides_is_shown():
    assert printable("a\u202eb\u200bc\ufeff\U000e0041") == r"a\u202eb\u200bc\ufeff\U000e0041"


def test_ordinary_text_of_any_script_stays():
    text = "Größe\t深度 测试 ≈ 1\nनमस्ते عربى 🙂"
    assert printable(text + "\r\n") == text + "\n"


def test_long_lines_are_cut_and_counted():
    assert (
        printable("a" * 10 + "\n" + "b" * 30, line=20)
        == "a" * 10 + "\n" + "b" * 20 + "… (10 more characters)"
    )
    assert printable("b" * 30, line=None) == "b" * 30


@pytest.mark.fuzz
@given(st.text())
def test_nothing_unprintable_remains(text):
    assert all(c.isprintable() or c in "\t\n" or ord(c) > 159 for c in printable(text))
