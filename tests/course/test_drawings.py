"""Tables with measured columns, and pictures that are drawn from the operators themselves."""

from __future__ import annotations

import io
import math
from unittest.mock import patch

import torch
from matplotlib.figure import Figure
from PIL import Image

from deskocr_kit.course import captioned as captioned_module
from deskocr_kit.course.captioned import captioned
from deskocr_kit.course.drawings.confidence import FILLS, draw_confidence
from deskocr_kit.course.drawings.conv import columns, patches, windows
from deskocr_kit.course.drawings.drawing import Drawing
from deskocr_kit.course.drawings.rows import scatter, storage
from deskocr_kit.course.drawings.timeline import Timeline, throughput
from deskocr_kit.course.page_pictures import Beside, Boxes, Picture
from deskocr_kit.display.table import Cell, Table, html_table, markdown_table, text_table
from model.confidence import Scores


def test_measured_columns_stand_behind_the_sign():
    table = Table([{"name": "a<b", "ms": 3, "verdict": "pass"}], measured=("ms",))
    left, right = repr(table).splitlines()[1].split("≈")
    assert left.split() == ["a<b", "pass"] and right.strip() == "3"
    assert '<td style="text-align:left;opacity:.7">≈ 3</td>' in table._repr_html_()
    assert "a&lt;b" in table._repr_html_()


def test_captions_say_what_the_operators_did():
    assert "25 columns of 9" in columns(5, 3, 1, 1).caption
    assert windows(9, 3, 2, 1).caption.endswith("25 by keyword, 121 by position.")
    assert "4 patches" in patches(8, 4).caption


def test_storage_knows_views_from_copies():
    base = torch.zeros(2, 3)
    caption = storage({"base": base, "row": base[1], "copy": base[1].clone()}).caption
    assert caption == "memory 1 holds base and row; memory 2 holds copy."


def test_scatter_draws_a_png_with_alternative_text():
    before, mask = torch.arange(6.0).view(3, 2), torch.tensor([True, False, True])
    source = 10 + torch.arange(4.0).view(2, 2)
    drawing = scatter(before, mask, source, before.masked_scatter(mask[:, None], source))
    data, about = drawing._repr_png_()
    assert data.startswith(b"\x89PNG") and about["alt"] == drawing.caption


def test_a_timeline_records_calls_and_leaves_the_methods_as_they_were():
    class Worker:
        def read(self, pages):
            return pages * 2

    timeline, worker, real = Timeline(), Worker(), Worker.read
    with timeline.watch({"all": (Worker, "read"), "one": (worker, "read")}):
        assert worker.read(3) == 6 and Worker().read(1) == 2
    assert timeline.calls() == {"all": 2, "one": 1} and min(timeline.seconds().values()) > 0
    assert Worker.read is real and "read" not in vars(worker)
    assert timeline.drawing().caption == "When each part works, one bar per call: all, one."
    assert timeline.drawing()._repr_png_()[0].startswith(b"\x89PNG")


def test_throughput_needs_no_measured_number_in_its_caption():
    drawing = throughput([1, 4], [2.0, 3.0])
    assert "with 1, 4 pages in a batch" in drawing.caption and drawing._repr_png_()[0]


def test_a_table_as_text_html_and_markdown():
    head, rows = ("name", "n", "ms"), [["a|b", "1", "2.5"], ["<c>", "10", ""]]
    assert text_table(head, rows) == "name  n   ms\na|b   1   2.5\n<c>   10"
    assert text_table(head, rows, measured=2).splitlines()[1] == "a|b   1   ≈ 2.5"
    assert text_table(head, rows, right=True, indent="- ").splitlines()[1] == "-  a|b   1  2.5"
    assert markdown_table(head, rows)[1:3] == ["|---|---|---|", "| a\\|b | 1 | 2.5 |"]
    html = html_table(
        head, [[Cell("<c>", "color:red", "b", "x & y"), "1", Cell("2", "")]], ("ms",), "t<", ["why"]
    )
    assert html == (
        '<table><caption>t&lt;</caption><thead><tr><th style="text-align:left">name</th>'
        '<th style="text-align:left">n</th><th>ms</th></tr></thead><tbody><tr title="why">'
        '<td style="color:red"><b>&lt;c&gt;</b><br>x &amp; y</td><td style="text-align:left">1</td><td>2</td>'
        "</tr></tbody></table>"
    )


def test_each_character_has_the_fill_of_its_least_sure_token():
    values, spans = [0.999, 0.95, 0.6, 0.2, 0.7], [(0, 2), (2, 3), (2, 3), (3, 5), (5, 5)]
    scores = Scores("ab?\nc", [math.log(value) for value in values], spans)
    (axes,) = draw_confidence(scores).axes
    drawn = [
        (text.get_text(), box.get_hatch() or "") for text, box in zip(axes.texts, axes.patches, strict=True)
    ]
    sure, _, unsure, wrong = (hatch for _, hatch in FILLS.values())
    assert drawn == [("a", sure), ("b", sure), ("?", unsure), ("¶", wrong), ("c", wrong), ("¶", unsure)]


def test_the_caption_is_printed_below_the_picture_and_wrapped():
    """JupyterLab shows only the PNG of an output, so its caption must be in it."""
    white, words = Image.new("RGB", (600, 50), "white"), "a caption of some words"
    heights = []
    for count in (1, 2, 20):
        data, about = captioned(white, " ".join([words] * count))
        with Image.open(io.BytesIO(data)) as picture:
            heights.append(picture.height)
            ink = [picture.crop((0, top, 600, bottom)) for top, bottom in ((0, 50), (50, picture.height))]
        assert about["alt"] == " ".join([words] * count)
        assert [part.convert("L").getextrema()[0] < 128 for part in ink] == [False, True], "below, not on it"
    assert heights[0] == heights[1] < heights[2]


def test_every_class_that_shows_a_picture_prints_a_caption():
    page, text = Image.new("L", (64, 48), 255), "<|ref|>title<|/ref|><|det|>[[1, 1, 9, 9]]<|/det|>"
    figure = Figure(figsize=(1, 1))
    shown = [
        Picture(page, "a"),
        Picture(figure, "a"),
        Beside(page, "read"),
        Boxes(page, text),
        Drawing(figure, "a"),
    ]
    with patch.object(captioned_module, "png", side_effect=lambda sheet: sheet.size) as made:
        for each in shown:
            assert each._repr_png_()[0][1] > 48
    assert made.call_count == len(shown)
