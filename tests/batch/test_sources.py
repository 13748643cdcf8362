"""Which files and pages the arguments of a batch name."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.batch.sources import EVERY_PAGE, Choice, Source, parse_choice, sources


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.pdf",
        "b.png",
        "scans/p2.png",
        "scans/p10.png",
        "scans/deep/c.jpg",
        "scans/note.txt",
        "x:1-2",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(*given, **how):
    return [source.file for source in sources(given, **how)]


def test_files_folders_patterns_and_a_list_on_stdin(tree):
    assert names("b.png", "scans") == ["b.png", "scans/p2.png", "scans/p10.png"]
    assert names("scans", recursive=True) == ["scans/p2.png", "scans/p10.png", "scans/deep/c.jpg"]
    assert names("scans/*.png") == ["scans/p10.png", "scans/p2.png"]
    assert names("**/*.jpg") == ["scans/deep/c.jpg"]
    assert names("-", stdin=["a.pdf:2\n", "\n", "scans/deep\r\n"]) == ["a.pdf", "scans/deep/c.jpg"]
    assert names("missing.png") == ["missing.png"], "reading it reports that it is missing"
    with pytest.raises(ValueError, match="no file matches"):
        names("*.gif")
    (tree / "empty").mkdir()
    with pytest.raises(ValueError, match="contains no image or PDF.*--recursive"):
        names("empty")


def test_pages_of_a_pdf(tree):
    (source,) = sources(["a.pdf:1-3,9"])
    assert [n for n in range(12) if n in source.choice] == [1, 2, 3, 9] and source.choice.last == 9
    assert source.choice.skipped({2}) == {2, 4, 5, 6, 7, 8}
    (source,) = sources(["a.pdf:7-"])
    assert 6 not in source.choice and 7 in source.choice and source.choice.last is None
    assert sources(["a.pdf"]) == [Source("a.pdf", EVERY_PAGE)]
    assert sources(["x:1-2"]) == [Source("x:1-2", EVERY_PAGE)], "a file of exactly this name goes first"
    for wrong in ("a.pdf:0", "a.pdf:5-2", "a.pdf:1-99999999999999", "a.pdf:99999999"):
        with pytest.raises(ValueError, match=r"a.pdf:.*(numbered|ends before)"):
            sources([wrong])


def test_one_file_named_twice_is_read_once_with_both_choices(tree):
    (source,) = sources(["a.pdf:1", "./a.pdf:3-", os.path.abspath("a.pdf:2")])
    assert source == Source("a.pdf", Choice(frozenset({1, 2}), 3))


@given(st.text("0123456789-,:", max_size=12))
def test_a_choice_of_pages_is_understood_or_refused_in_words(text):
    try:
        found = sources([f"nothing here.pdf:{text}"])
    except ValueError as error:
        assert "nothing here.pdf" in str(error)
        return
    assert len(found) == 1


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=5))
def test_a_choice_holds_exactly_the_numbers_of_its_ranges(ranges):
    choice = parse_choice(",".join(f"{a}-{a + n}" for a, n in ranges))
    wanted = {k for a, n in ranges for k in range(a, a + n + 1)}
    assert {n for n in range(100) if n in choice} == wanted
    assert set(range(1, choice.last + 1)) - choice.skipped(()) == wanted
