"""Results in notebooks: a line, a table or a described picture, with the text of a model escaped."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from deskocr_kit.course.check import Verdict, VerdictTable
from deskocr_kit.course.page_pictures import Beside, Boxes, Picture
from deskocr_kit.course.puzzles.attempts import get, solution
from deskocr_kit.course.puzzles.puzzle import Open, Text
from deskocr_kit.doctor.report import Report, Row
from deskocr_kit.reading.pages import Page
from model.inference import Reading

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\nnext line"
PAGE = Image.new("RGB", (64, 48), "white")
GROUNDED = f"<|ref|>{EVIL}<|/ref|><|det|>[[10, 10, 500, 500]]<|/det|>"


def reading(text=EVIL):
    return Reading(text, text, [1, 2], 3, 1, (1, 1), True, 0.5)


WITH_HTML = {
    "verdict": Verdict(EVIL, EVIL, EVIL),
    "verdict table": VerdictTable([Verdict(EVIL, EVIL, EVIL)]),
    "doctor": Report([Row(EVIL, EVIL, "FAIL", EVIL, EVIL)], None, EVIL),
    "reading": reading(),
    "hint": Text(EVIL),
    "open puzzle": Open(get("patchify")),
    "solution": solution("patchify"),
}


@pytest.mark.parametrize("name", WITH_HTML)
def test_html_is_escaped_and_there_is_a_plain_line(name):
    shown = WITH_HTML[name]
    html = shown._repr_html_()
    assert not re.search(r"<(script|img)", html) and repr(shown)
    if "alert" in repr(shown):
        assert "&lt;script&gt;" in html


PICTURES = {
    "beside": Beside(PAGE, EVIL, "letter.png"),
    "boxes": Boxes(PAGE, GROUNDED),
    "picture": Picture(PAGE, "a white page"),
    "page": Page("scans/letter.png", 2, PAGE),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_carry_their_description(name):
    picture, about = PICTURES[name]._repr_png_()
    assert picture[:4] == b"\x89PNG" and len(about["alt"]) > 10
    assert "0x" not in repr(PICTURES[name])


def test_what_a_model_wrote_stands_right_of_the_mark_on_one_line():
    for shown in (reading(), PICTURES["beside"], PICTURES["boxes"]):
        assert repr(shown).index("≈") < repr(shown).index("alert") and "\n" not in repr(shown)
    assert "\n" not in reading()._repr_html_() and "truncated" in repr(reading())


def test_a_page_without_a_picture_says_why():
    page = Page("scans/letter.png", 2, error=ValueError("it is empty"))
    assert repr(page) == "page 2 of letter.png: it is empty" and page._repr_png_() is None
    assert repr(PICTURES["page"]) == "page 2 of letter.png: 64 x 48"


def test_the_word_says_what_the_colour_says():
    for word, shown in (
        ("PASS", WITH_HTML["verdict"]),
        ("FAIL", WITH_HTML["doctor"]),
        ("OPEN", WITH_HTML["open puzzle"]),
    ):
        assert word in shown._repr_html_() and word in repr(shown)
