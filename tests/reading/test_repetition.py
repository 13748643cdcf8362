"""What counts as a loop: under the n-gram guard, with and without the end token; and what does not."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit import loops
from deskocr_kit.reading.doubt import doubts
from deskocr_kit.reading.repetition import looped
from tests.helpers.looping import BOX, GUARD, LOOPING, ONE, TWO, Characters, Words, ordinary, under_the_guard
from tests.helpers.paths import ROOT

END = 1
TOKENIZERS = {"words": Words, "characters": Characters}
UNITS = {
    "line": ONE,
    "two lines": ONE + TWO,
    "box": BOX.format(200, 220),
    "three words": "and so on ",
    "one": "x",
}
LONG = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/api.md",
    "LICENSE",
    "model/loading.py",
    "requirements-tested.txt",
    "reports/cpu-nano/report.md",
]


def test_what_a_loop_is():
    assert loops([5, 6] * 12 + [1]) and loops([9] * 24 + [1])
    assert loops([0, 3, *range(10, 40)] + [*range(50, 80)] * 4 + [1])
    assert not loops([5, 6] * 11 + [1]) and not loops([9] * 23 + [1])
    assert not loops([]) and not loops([7]) and not loops(list(range(500)))
    assert not loops([*range(50, 80)] * 3 + [1])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("text", LOOPING)
def test_loops_are_found_with_and_without_the_end_token(text, tokenizer):
    ids = TOKENIZERS[tokenizer]()(LOOPING[text])
    assert loops(ids) and loops([*ids, END])
    assert looped(ids) > len(ids) / 3


@pytest.mark.parametrize("when_banned", ["new", "of the unit", "insert", "skip"])
@pytest.mark.parametrize("unit", UNITS)
def test_loops_are_found_under_the_guard(unit, when_banned):
    """The guard forbids exact copies: the old definitions, which wanted them, found none of these."""
    encode = Words()
    ids = under_the_guard(encode(UNITS[unit]), 1200, when_banned)
    assert len({tuple(ids[i : i + GUARD]) for i in range(len(ids) - GUARD + 1)}) == len(ids) - GUARD + 1
    assert loops(ids) and loops([*ids, END])
    page = encode((ROOT / "docs" / "background.md").read_text(encoding="utf-8")[:4000])
    assert not loops(page) and loops([*page, *ids, END])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_pages_that_repeat_much_do_not_loop(tokenizer):
    encode = TOKENIZERS[tokenizer]()
    found = {name for name, text in ordinary().items() for end in ([], [END]) if loops([*encode(text), *end])}
    assert found == set()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("file", LONG)
def test_long_texts_do_not_loop(file, tokenizer):
    text = (ROOT / file).read_text(encoding="utf-8")[:40_000]
    encode = TOKENIZERS[tokenizer]()
    assert not any(loops(encode(text[at : at + 12_000])) for at in range(0, len(text), 12_000))


@pytest.mark.fuzz
@given(st.lists(st.integers(0, 5), max_size=300), st.integers(0, 129_279))
def test_any_ids_have_an_answer(ids, end):
    assert isinstance(loops(ids), bool)
    if end not in ids:
        assert loops(ids) <= loops([*ids, end])


@pytest.mark.fuzz
@given(st.lists(st.integers(10, 4000), min_size=12, max_size=60, unique=True), st.integers(0, 10**6))
def test_any_long_unit_is_found_under_the_guard(unit, seed):
    for when_banned in ("new", "insert", "skip"):
        assert loops(under_the_guard(unit, 16 * len(unit) + 100, when_banned, seed))


def test_the_time_is_bounded():
    """8192 ids, the longest answer, of few and of many different tokens; measured 0.1 s."""
    for high in (2, 3, 50, 4000):
        ids = np.random.default_rng(0).integers(0, high, 8192).tolist()
        began = time.process_time()
        assert not loops(ids)
        assert time.process_time() - began < 2


def test_a_page_that_loops_has_a_warning():
    from types import SimpleNamespace

    from PIL import Image

    reading = SimpleNamespace(ids=[5, 6] * 40 + [END], confidence=None)
    page = Image.new("L", (600, 800), 255)
    page.paste(0, (100, 100, 300, 110))
    (warning,) = doubts(page.convert("RGB"), reading, {}, "tiny", "free")
    assert warning.startswith("the text loops: 80 of 81 tokens")
