"""Model text of any content: linear time, bounded memory and disk, cuts that are named, nothing that runs."""

from __future__ import annotations

import csv
import io
import json
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from model.boxes import MAX_BOXES, parse_boxes
from model.html_tables import MAX_CELLS, MAX_DEPTH, MAX_TABLES
from model.overlay import MAX_FIGURES, MAX_MARKS, draw_overlay, marks
from model.results import to_markdown, what_is_cut, write_results
from model.safe_markdown import SCHEMES, safe_markdown, scheme_of
from model.tables import csv_safe, find_tables, tables, to_csv
from tests.helpers import bounds
from tests.helpers.hostile_text import TELLING, TEXTS, box

PAGE = Image.new("RGB", (320, 240), "white")


def cells(content: str) -> list[list[list[str]]]:
    return tables(f"<table><tr><td>{content}</td></tr></table>")


# ------------------------------------------------------------------ bounds
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
@pytest.mark.parametrize(
    ("names", "size"),
    [
        (TELLING, (413, 585)),
        # All texts: a minute. The page at 600 dpi has 139 MB, and most of the time goes to its pictures.
        pytest.param(tuple(TEXTS), bounds.SIZES["A4 at 150 dpi"], marks=pytest.mark.slow),
        pytest.param(tuple(TEXTS), bounds.SIZES["A4 at 600 dpi"], marks=pytest.mark.slow),
    ],
    ids=["telling texts", "all texts", "all texts on a large scan"],
)
def test_no_text_takes_more_than_its_bounds(names, size):
    """2 s of CPU per 100,000 characters, 256 MB beyond the page (the child's limit), 50 MB on disk."""
    found = bounds.results_of(list(names), size, scored=True)
    assert [each["name"] for each in found] == list(names)
    pictures = size[0] * size[1] / 5e6  # seconds to encode them, three times what this machine needs
    slow = [e["name"] for e in found if e["seconds"] > pictures + max(e["characters"], 10_000) / 50_000]
    assert slow == []
    assert [each["name"] for each in found if each["disk"] > 50e6] == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("wide and high spans", "rows were left out"),
        ("many pipe tables", f"tables were left out: more than {MAX_TABLES}"),
        ("nested tables", f"nested deeper than {MAX_DEPTH}"),
        ("many small boxes", f"boxes left out, a page has more than {MAX_BOXES:,}"),
        ("figures of the whole page", f"figures were left out: more than {MAX_FIGURES}"),
    ],
)
def test_what_is_cut_is_named(name, what):
    (line,) = [each for each in what_is_cut(TEXTS[name]) if what in each]
    assert int(line.split()[0].replace(",", "")) > 0 if line[0].isdigit() else line


def test_result_json_says_what_was_cut_and_lists_only_files_that_are_there(tmp_path):
    result = write_results(tmp_path, PAGE, TEXTS["figures of the whole page"])
    assert any("figures were left out" in line for line in result["cut"])
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert stored["cut"] == result["cut"]
    assert all((tmp_path / name).is_file() for name in stored["files"])
    shown = [line[4:-1] for line in stored["markdown"].splitlines() if line.startswith("![](")]
    assert shown and all((tmp_path / name).is_file() for name in shown)
    assert write_results(tmp_path, PAGE, box("text", "[[1, 2, 3, 4]]") + "fine")["cut"] == []


def test_a_text_beyond_the_limit_is_cut_and_its_confidences_left_out(tmp_path):
    extra = {"tokens": 7, "lines": ["all of it"], "boxes": []}
    result = write_results(tmp_path, PAGE, "x" * 600_000, extra=extra)
    assert len(result["text"]) == 500_000 and "100,000 characters" in result["cut"][0]
    assert result["tokens"] == 7 and "lines" not in result


def test_boxes_beyond_the_limit_are_not_drawn_and_equal_ones_only_once():
    many = parse_boxes(box("a", ",".join(f"[{i % 900}, {i // 900}, 950, 950]" for i in range(4000))))
    chosen, over = marks(many, (100, 100))
    assert len(chosen) <= MAX_MARKS and over > 0
    twice = parse_boxes(box("a", "[[1, 2, 300, 400], [1, 2, 300, 400]]"))
    assert len(marks(twice, PAGE.size)[0]) == 1
    assert draw_overlay(PAGE, many).size == PAGE.size


def test_a_page_that_is_shaded_in_bands_looks_as_if_shaded_at_once(monkeypatch):
    refs = parse_boxes(
        box("text", "[[10, 20, 700, 900], [300, 100, 990, 500]]") + box("title", "[[5, 5, 99, 999]]")
    )
    sure = [[(0.5, 0.5), (0.9, 0.9)], [(0.2, 0.2)]]
    at_once = draw_overlay(PAGE, refs, sure)
    monkeypatch.setattr("model.overlay.BAND", PAGE.width * 7)
    assert draw_overlay(PAGE, refs, sure).tobytes() == at_once.tobytes()


def test_pictures_of_a_huge_page_are_reduced_and_this_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("model.overlay.reduced.__defaults__", (None, 10_000))
    result = write_results(tmp_path, PAGE, box("image", "[[0, 0, 999, 999], [0, 0, 99, 99]]"))
    assert Image.open(tmp_path / "result_with_boxes.jpg").size == (107, 80)
    assert Image.open(tmp_path / "images" / "0.jpg").size == (107, 80)
    assert Image.open(tmp_path / "images" / "1.jpg").size == (31, 23)
    assert len(result["cut"]) == 2 and all("reduced" in line for line in result["cut"])


# ------------------------------------------------------------------ tables
@pytest.mark.parametrize(
    "text",
    [
        "0.5<S≤1", "a<b and c>d", "0 <b and y> 1", "x < y", "p <0.05", "if (i<n)", "<x>", "<https://a.b>",
        "<3", "a<",
        "<!-- note -->", "<!DOCTYPE x>", "<?xml?>", "List<String>", "<sub 2>", "<b",
    ],
)  # fmt: skip
def test_a_less_than_that_begins_no_tag_of_the_list_is_text(text):
    assert cells(text) == [[[text]]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a<br>b", "a b"), ("a</br>b", "a b"), ("a<br/>b", "a b"), ("<p>a</p><p>b</p>", "a b"),
        ("a</div>b", "a b"), ("<ul><li>a</li><li>b</li></ul>", "a b"), ("a</p>b", "a b"),
        ("H<sub>2</sub>O", "H2O"), ("<b>a</b>b", "ab"), ("<span style='x'>a</span>", "a"),
        ("<A HREF='x'>a</A >", "a"),
        ("&lt;b&gt;", "<b>"), ("&#65;&#x42;", "AB"), ("&#99999999999;", "\ufffd"), ("a &amp b", "a & b"),
    ],
)  # fmt: skip
def test_well_formed_tags_of_the_list_are_markup_and_ends_of_blocks_are_breaks(content, text):
    assert cells(content) == [[[text]]]


def test_a_tag_of_the_structure_counts_even_with_a_damaged_attribute():
    assert tables("<table><tr><td colspan='2>a</td><td width=5%>b</td></tr></table>") == [[["a", "b"]]]


def test_a_repeated_text_that_does_not_fit_is_kept_once():
    (table,), cut = find_tables(f"<table><tr><td colspan=999>{'x' * 9000}<td>y</table>")
    assert [len(cell.text) for cell in table[0]][:3] == [9000, 0, 0] and table[0][-1].text == "y"
    assert cut == []


@pytest.mark.parametrize(
    "before", ["\u00a0", "\u200b", "\ufeff", "\0", "\u2060", "\u3164", "\x1f", "\u202e", "\u180e "]
)
def test_a_formula_behind_characters_that_are_not_seen_is_disarmed(before):
    assert csv_safe(f"{before}=1+1").startswith("'")
    assert "\0" not in csv_safe(f"{before}=1+1")
    assert csv_safe(f"{before}a=1") == f"{before}a=1".replace("\0", "")


# ------------------------------------------------------------------ markdown
@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<iframe src='//x'>",
        "<svg/onload=alert(1)>",
        "<td onclick=alert(1)>", '<td x"y onclick=alert(1)>', "<p/onclick=alert(1)>", "<style>*{}</style>",
        "<td style='background:url(//x)'>", "<a href=javascript:alert(1)>", "<div\n<script>", "<!--><script>",
    ],
)  # fmt: skip
def test_raw_html_becomes_text(text):
    assert live(safe_markdown(text)) == []


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)", "JaVaScript:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)",
        "<javascript:alert(1)>", "&#106;avascript:alert(1)", "java&#x0A;script:x",
        "javascript&colon;alert(1)",
        "javascript\\:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd",
        "&#38;#106;avascript:x",
    ],
)  # fmt: skip
def test_links_that_run_code_are_no_links(target):
    for text in (f"[a]({target})", f"[a]: {target}", f"\\href{{{target}}}{{a}}", f"![a]({target})"):
        shown = safe_markdown(text)
        assert not any(mark in shown for mark in ("](", "]:", "\\href", "![")), shown


def test_what_is_harmless_stays_as_it_is():
    for text in (
        "# A\n\n<table><tr><td colspan=2 rowspan='3'>x<br/>y</td></tr></table>\n", "a < b, 3<4, \\( a<1 \\)",
        "H<sub>2</sub>O <b>x</b>", "[a](https://example.org) [b](page.html) [c](#top)", "| a |\n|---|\n| b |",
        "[1]: https://example.org", "note [1]: see", "`x` **y**", "![](images/0.jpg)\n",
    ):  # fmt: skip
        assert safe_markdown(text) == text
    assert safe_markdown("![](http://x/y.png)") == "&#33;[](http://x/y.png)", "a picture would be fetched"


def test_the_files_of_a_page_are_safe_and_result_json_has_the_text_as_it_was(tmp_path):
    text = "<script>alert(1)</script>" + box("text", "[[1, 2, 3, 4]]") + "[x](javascript:alert(1))"
    result = write_results(tmp_path, PAGE, text)
    assert result["text"] == text
    shown = (tmp_path / "result.mmd").read_text(encoding="utf-8")
    assert shown == result["markdown"] == "&lt;script>alert(1)&lt;/script>[x]&#40;javascript:alert(1))"


def test_a_tag_that_only_the_removal_of_a_box_joins_is_disarmed():
    text = f"<scr{box('text', '[[1, 2, 3, 4]]')}ipt>alert(1)</script>"
    assert live(to_markdown(text)) == []


class _Live(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "img", "iframe", "svg", "style", "a", "object", "form", "link", "meta", "base"):
            self.found.append(tag)
        self.found += [
            name for name, _ in attributes if name.startswith("on") or name in ("style", "href", "src")
        ]

    def handle_comment(self, data):
        self.found.append("comment")


def live(text: str) -> list[str]:
    """Tags and attributes that a browser would act on, in a text whose markup is HTML."""
    parser = _Live()
    parser.feed(text)
    parser.close()
    return parser.found


# ------------------------------------------------------------------ generated texts
PIECES = st.sampled_from(
    [
        "<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>", "<td colspan=3 rowspan=0>",
        "<th rowspan='2'>", "<br>",
        "|", "|-|", "\n", "\\|", "<", ">", "&", "&#", "&lt;", "9", "a", " ", "=", "'", '"', "<|ref|>",
        "<|/ref|>",
        "<|det|>", "<|/det|>", "[[", "1, 2, 300, 400", "]]", ",", "image", "![", "](", "javascript:", "]:",
        "<script>",
        "<img src=x onerror=y>", "\\coloneqq", "\ud800", "\0", "\u200b", "<!--", "-->", "/", "onclick=x",
    ]
)  # fmt: skip
GENERATED = st.lists(PIECES | st.text(max_size=3), max_size=60).map("".join)


@pytest.mark.fuzz
@given(GENERATED)
@example("<table><tr><td>" + "&#" + "9" * 5000)
@example("<table><tr><td rowspan=0>a<tr><td colspan=2>b<table><td>c</table>")
def test_any_text_gives_rectangular_tables_whose_csv_reads_back(text):
    found, cut = find_tables(text)
    assert cut == [] and sum(len(row) for table in found for row in table) <= MAX_CELLS
    for table in found:
        assert len({len(row) for row in table}) == 1
        for cell in (cell for row in table for cell in row if cell.span is not None):
            assert 0 <= cell.span[0] <= cell.span[1] <= len(text)
        plain = [[cell.text for cell in row] for row in table]
        back = list(csv.reader(io.StringIO(to_csv(plain))))
        assert back == [[csv_safe(cell) for cell in row] for row in plain]


@pytest.mark.fuzz
@given(GENERATED)
def test_any_text_gives_boxes_on_the_page(text):
    for ref in parse_boxes(text):
        assert text[slice(*ref.span)].startswith("<|ref|>") and len(ref.places) == len(ref.boxes)
        assert all(0 <= x1 < x2 <= 999 and 0 <= y1 < y2 <= 999 for x1, y1, x2, y2 in ref.boxes)


@pytest.mark.fuzz
@given(GENERATED)
@example("<td/onclick=x>")
def test_any_text_gives_markdown_without_anything_live(text):
    shown = to_markdown(text)
    assert live(shown) == []
    for mark in ("](", "]:"):
        for part in shown.split(mark)[1:]:
            assert scheme_of(part.split(")")[0].split("]")[0].split("(")[0].split("[")[0]) in {None, *SCHEMES}
    assert safe_markdown(shown) == shown
