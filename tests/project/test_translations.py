"""The two READMEs have the same structure and figures; the map of the notebooks lists all of them."""

from __future__ import annotations

import re

import pytest

from tests.helpers.stored import NOTEBOOKS, ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))
MAP = (ROOT / "notebooks" / "README.md").read_text("utf-8")


def blocks(text):
    """Code without comments, because comments are translated."""
    return [re.sub(r" *#.*", "", block) for block in re.findall(r"```\w+\n.*?```", text, re.S)]


def prose(text):
    return re.sub(r"```.*?```", "", text, flags=re.S)


def links(text):
    return [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("README")]


def tables(text):
    return [
        [line.count("|") for line in table.splitlines()]
        for table in re.findall(r"(?:^\|.*\n)+", prose(text) + "\n", re.M)
    ]


def figures(text):
    """Every number in the prose and the tables."""
    return sorted(re.findall(r"\d+(?:\.\d+)*", re.sub(r"\]\([^)]+\)", "", prose(text))))


def words_of_code(text):
    return re.findall(r"`([^`\n]+)`", prose(text))


@pytest.mark.parametrize(
    "part",
    [
        lambda text: [len(marks) for marks in re.findall(r"^(#+) ", prose(text), re.M)],
        blocks,
        links,
        tables,
        words_of_code,
        lambda text: re.findall(r"\| (tested|simulated|measured|not run) \|", text),
    ],
    ids=["headings", "code", "links", "tables", "words of code", "states"],
)
def test_both_readmes_have_the_same(part):
    assert part(ENGLISH) == part(CHINESE) != []


def test_both_readmes_have_the_same_figures():
    ours, theirs = figures(ENGLISH), figures(CHINESE.replace("（33 亿）", ""))
    assert ours == theirs


def test_each_readme_leads_to_the_other():
    assert ENGLISH.splitlines()[2] == "English | [中文](README.zh-CN.md)"
    assert CHINESE.splitlines()[2] == "[English](README.md) | 中文"
    assert "notebooks/README.md" in links(ENGLISH)


def test_chinese_is_chinese():
    paragraphs = [p for p in re.split(r"\n\n+", prose(CHINESE)) if p.strip()]
    assert all(re.search(r"[一-鿿]", p) for p in paragraphs)


def test_the_map_lists_every_notebook_once_with_its_minutes_and_hardware():
    rows = re.findall(r"^\| \[(\d\d)\. [^\]]+\]\(([^)]+)\) \| (.+) \| (\d+) \| (\w.*) \|$", MAP, re.M)
    assert [row[1] for row in rows] == [path.name for path in NOTEBOOKS]
    assert all(number == name[:2] for number, name, *_ in rows)


def test_the_map_says_what_to_read_in_the_time_there_is():
    for time in ("Ten minutes", "An hour", "A day"):
        assert f"**{time}:**" in MAP
