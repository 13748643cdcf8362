"""Tables in model text: HTML with spans, Markdown, broken ones; CSV that a spreadsheet does not execute."""

from __future__ import annotations

import csv
import io
import time

import pytest

from model.results import csv_safe, parse_boxes, tables, to_csv


def test_html_tables_with_spans_and_entities():
    html = (
        "<table><thead><tr><th colspan='2'>A &amp; B</th><th rowspan=2>C</th></tr></thead>"
        "<tr><td>1<br>x</td><td>&lt;2&gt;</td></tr><tr><td>  3\n 4 </td></tr></table>"
    )
    assert tables("x" + html + "y") == [
        [["A & B", "A & B", "C"], ["1 x", "<2>", "C"], ["3 4", "", ""]],
    ]


def test_rowspan_shifts_the_cells_below_it():
    html = "<table><tr><td>a</td><td rowspan=3>b</td></tr><tr><td>c<td>d</td></tr><tr><td>e</td></tr></table>"
    assert tables(html) == [[["a", "b", ""], ["c", "b", "d"], ["e", "b", ""]]]
    zero = "<table><tr><td rowspan=0>a</td><td>b</td></tr><tr><td>c</td></tr><tr><td>d</td></tr></table>"
    assert tables(zero) == [[["a", "b"], ["a", "c"], ["a", "d"]]]


def test_unclosed_and_nested_tables():
    assert tables("<table><tr><td>a<td>b<tr><td>c") == [[["a", "b"], ["c", ""]]]
    assert tables("<TABLE border=1><tr><td>a</td></tr></TABLE >") == [[["a"]]]
    nested = "<table><tr><td>o<table><tr><td>i</td></tr></table>p</td></tr></table>"
    assert tables(nested) == [[["op"]], [["i"]]]
    assert tables("<table></table><table><tr></tr></table><td>x</td></table>") == []


def test_text_that_looks_like_a_tag_stays_in_its_cell():
    assert tables("<table><tr><td>0 <x and y> 0</td><td><b>bold</b> a < b</td></tr></table>") == [
        [["0 <x and y> 0", "bold a < b"]]
    ]
    assert tables("<table><tr><td><script>1</td></tr><tr><td>2</td></tr></table>")[0][-1] == ["2"]


def test_markdown_tables():
    text = "A | b\n\n| h1 | h2 |\n|:---|---:|\n| 1 | a\\|b |\n| 2 |\n| 3 | 4 | 5 |\n\nend\nx|y\n-|-\n1|2"
    assert tables(text) == [
        [["h1", "h2"], ["1", "a|b"], ["2", ""], ["3", "4"]],
        [["x", "y"], ["1", "2"]],
    ]
    assert tables("Title\n---\ntext") == []
    assert tables("| a | b |\n|---|\n| 1 | 2 |") == []


def test_tables_come_in_reading_order():
    pipe, html = "|p|\n|-|\n|1|\n", "<table><tr><td>h</td></tr></table>\n"
    assert [t[0][0] for t in tables(f"{pipe}\n{html}\n{pipe}")] == ["p", "h", "p"]


def test_absurd_spans_cannot_eat_the_memory():
    begin = time.perf_counter()
    wide = tables("<table>" + "<tr><td colspan=99999999 rowspan=99999999>x</td></tr>" * 300 + "</table>")
    assert max(len(row) for row in wide[0]) <= 1300
    for bad in ("-1", "2.5", "x", "9" * 5000, "²", ""):
        assert tables(f"<table><tr><td colspan='{bad}'>x</td></tr></table>") == [[["x"]]]
    tables("<table " * 5000 + "|" + " " * 20000 + "|\n" + "|-" * 20000 + "x")
    parse_boxes("<|ref|>a" * 5000 + "<|/ref|><|det|>" * 5000)
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize(
    "cell", ["=1+1", "+cmd|' /C calc'!A0", "-1+1|x", "@SUM(A1)", "\t=1", " =1", "＝1", "--"]
)
def test_formulas_are_disarmed_in_csv(cell):
    assert csv_safe(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell", ["-5", "+3.2", "-1,234.56", "-5 %", "-$5", "+1e-3", "-", "a=b", "", "5", "-.5", "x@y"]
)
def test_numbers_and_plain_text_stay_as_they_are_in_csv(cell):
    assert csv_safe(cell) == cell


def test_csv_reads_back():
    table = [["a,b", 'q"q', "语"], ["1", "", "x"]]
    assert list(csv.reader(io.StringIO(to_csv(table)))) == table
