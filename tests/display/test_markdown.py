"""Names and texts in Markdown reports stay text."""

from __future__ import annotations

import json

from deskocr_kit.benchmark.report import markdown
from deskocr_kit.display.markdown import fenced, harmless
from tests.helpers.paths import ROOT

HOSTILE = "<script>x</script>[a](javascript:x)![](http://x)[b]: data:x"


def test_html_links_and_pictures_become_text():
    assert harmless(HOSTILE) == (
        "&lt;script>x&lt;/script>[a]&#40;javascript:x)&#33;[]&#40;http://x)[b]&#58; data:x"
    )
    assert harmless("1 < 2, a <= b, [1], `x`: (y)") == "1 < 2, a <= b, [1], `x`: (y)"


def test_a_fence_is_longer_than_those_in_the_text():
    assert fenced("a\n````\nb") == "`````\na\n````\nb\n`````"
    assert fenced("a") == "```\na\n```"


def test_names_in_a_benchmark_do_not_become_markup_of_its_report():
    stored = json.loads((ROOT / "reports" / "cpu-nano" / "bench.json").read_text(encoding="utf-8"))
    stored["stamp"]["checkpoint"]["name"] = stored["stamp"]["command"] = HOSTILE
    shown = markdown(stored, {"time.svg": "our caption"}, [], "")
    assert "<script>" not in shown and "](javascript" not in shown and "![](http" not in shown
    assert "![our caption](time.svg)" in shown
