"""Tables with measured columns, and pictures drawn from the operators themselves."""

from __future__ import annotations

import torch

from deskocr_kit.course.drawings.conv import columns, patches, windows
from deskocr_kit.course.drawings.rows import scatter, storage
from deskocr_kit.display.table import Table


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
