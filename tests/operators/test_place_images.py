"""Placing rows by a mask: every substitute compared with torch's masked_scatter, with views and errors."""

from __future__ import annotations

import random

import pytest
import torch

from deskocr_kit.operators.substitutes.masked_scatter import out_of_place
from deskocr_kit.operators.substitutes.registry import candidates

PLACE = candidates("place_images")
SCATTER = {name: f for name, f in candidates("masked_scatter_").items() if name != "reference"}


# ---------------------------------------------------------------------- place_images
@pytest.mark.parametrize("name", PLACE)
def test_rows_go_to_their_places_in_order(name):
    for seed in range(40):
        torch.manual_seed(seed)
        b, n, d = (1, 2, 3)[seed % 3], (1, 7, 16)[seed % 2], (1, 5)[seed % 2]
        dtype = (torch.float32, torch.bfloat16, torch.float16)[seed % 3]
        embeds = (
            torch.randn(b, 2 * n, d).to(dtype)[:, ::2] if seed % 5 == 0 else torch.randn(b, n, d).to(dtype)
        )
        mask = torch.rand(b, n) < (0.0, 0.5, 1.0)[seed % 3]
        source = torch.randn(int(mask.sum()), 2 * d).to(dtype)[:, ::2]
        before = embeds.clone()
        ours = PLACE[name](embeds, mask, source)
        expected = embeds.clone()
        expected[mask] = source
        assert torch.equal(ours, expected) and ours.dtype == dtype
        assert torch.equal(embeds, before), "the given embeddings were changed"


@pytest.mark.parametrize("name", PLACE)
def test_numbers_of_rows_have_to_agree(name):
    embeds, mask = torch.zeros(2, 4, 3), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool)
    with pytest.raises(RuntimeError):
        PLACE[name](embeds, mask, torch.ones(2, 3))
    with pytest.raises(RuntimeError):
        PLACE[name](embeds, mask, torch.ones(0, 3))
    with pytest.raises(ValueError, match="4 image rows for 3 places"):
        PLACE[name](embeds, mask, torch.ones(4, 3))
    source = torch.arange(12.0).view(4, 3)
    assert torch.equal(PLACE[name](embeds, mask, source, allow_extra=True)[mask], source[:3])


@pytest.mark.parametrize("name", PLACE)
def test_types_have_to_agree(name):
    embeds, mask = torch.zeros(1, 3, 2), torch.tensor([[True, False, True]])
    with pytest.raises(RuntimeError, match=r"dtype"):
        PLACE[name](embeds, mask, torch.ones(2, 2).half())
    with pytest.raises(RuntimeError):
        PLACE[name](embeds, mask.int(), torch.ones(2, 2))


@pytest.mark.parametrize("name", PLACE)
def test_one_mask_for_a_batch(name):
    embeds, mask = torch.zeros(2, 3, 1), torch.tensor([[True, False, True]])
    if name == "reference":  # in the model there is one mask per sample
        mask = mask.expand(2, 3)
    out = PLACE[name](embeds, mask, torch.arange(1.0, 5.0)[:, None])
    assert out[..., 0].tolist() == [[1, 0, 2], [3, 0, 4]]


# ---------------------------------------------------------------------- masked_scatter_
def scene(draw: random.Random):
    """A base, a view of it (as a function of the base), a mask and a source."""
    shape = draw.choice([(6,), (4, 5), (2, 3, 4), (5, 1), (3, 0), (0,), (1, 7), ()])
    views = [lambda t: t]
    if len(shape) >= 2 and shape[0] > 1:
        views += [lambda t: t[1], lambda t: t[::2], lambda t: t.transpose(0, 1), lambda t: t[:, -1:]]
    dtype = draw.choice([torch.float32, torch.float16, torch.bfloat16, torch.int64])
    base = (torch.randn(shape) * 50).to(dtype)
    view = draw.choice(views)
    target = view(base).shape
    mask_shape = list(target)
    kind = draw.choice(["full", "rows", "columns", "scalar"])
    if kind == "rows" and mask_shape:
        mask_shape[-1] = 1
    elif kind == "columns" and mask_shape:
        mask_shape[0] = 1
    elif kind == "scalar":
        mask_shape = []
    mask = torch.rand(mask_shape) < draw.choice([0.0, 0.3, 0.7, 1.0])
    if draw.random() < 0.3:
        mask = mask.t() if mask.dim() == 2 and mask.shape == target[::-1] else mask.expand(target)
    needed = int(mask.expand(target).sum())
    source = (torch.randn(needed + draw.choice([0, 0, 1, 7])) * 50).to(dtype)
    if draw.random() < 0.3 and len(source) % 2 == 0:
        source = source.view(2, -1).t()
    return base, view, mask, source


@pytest.mark.parametrize("name", SCATTER)
def test_four_hundred_scenes(name):
    draw = random.Random(1)
    for seed in range(400):
        torch.manual_seed(seed)
        base, view, mask, source = scene(draw)
        ours, expected = base.clone(), base.clone()
        target = view(ours)
        result = SCATTER[name](target, mask, source)
        view(expected).masked_scatter_(mask, source)
        assert result is target, "masked_scatter_ gives back the tensor it was called on"
        assert torch.equal(ours, expected), seed  # compare the base, not the view: the write was in place


@pytest.mark.parametrize("name", SCATTER)
def test_out_of_place(name):
    function, draw = out_of_place(SCATTER[name]), random.Random(2)
    for seed in range(100):
        torch.manual_seed(seed)
        base, view, mask, source = scene(draw)
        before = base.clone()
        assert torch.equal(function(view(base), mask, source), view(base).masked_scatter(mask, source))
        assert torch.equal(base, before)
    wide = function(torch.zeros(3), torch.tensor([[True], [False]]), torch.arange(3.0))
    assert wide.tolist() == [[0, 1, 2], [0, 0, 0]]  # self is broadcast too


@pytest.mark.parametrize("name", SCATTER)
def test_a_row_view_changes_its_base(name):
    """The call in DeepSeek-OCR's own code; a patch that returns a copy would leave zeros."""
    embeds = torch.zeros(2, 4, 3)
    mask = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    rows = torch.arange(1.0, 10.0).view(3, 3)
    SCATTER[name](embeds[0], mask[0].unsqueeze(-1), rows[:2])
    SCATTER[name](embeds[1], mask[1].unsqueeze(-1), rows[2:])
    assert embeds[mask].tolist() == rows.tolist() and embeds[~mask].abs().sum() == 0


@pytest.mark.parametrize("name", SCATTER)
def test_errors_are_torchs_with_better_words(name):
    x, mask = torch.zeros(2, 3), torch.ones(2, 1, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"self float32, source float16"):
        SCATTER[name](x, mask, torch.ones(6).half())
    with pytest.raises(RuntimeError, match="bool"):
        SCATTER[name](x, mask.int(), torch.ones(6))
    with pytest.raises(RuntimeError):
        SCATTER[name](x, mask, torch.ones(5))
    with pytest.raises(RuntimeError):
        SCATTER[name](x, torch.ones(4, 3, dtype=torch.bool), torch.ones(12))
    with pytest.raises(RuntimeError):
        SCATTER[name](torch.zeros(1, 3).expand(2, 3), mask, torch.ones(6))  # six places, three values
    assert torch.equal(x, torch.zeros(2, 3)), "a refused call must change nothing"


def test_a_missing_row_cannot_pass_where_nobody_may_wait(monkeypatch):
    """With the mask on a device the count is unknown: missing values become NaN."""
    from deskocr_kit.operators.substitutes import masked_scatter

    mask, rows = torch.tensor([True, False, True, True]), torch.arange(1.0, 5.0).view(2, 2)

    class OnDevice(torch.Tensor):  # reports another device, computes on this one
        device = property(lambda self: torch.device("meta"))

    picked = masked_scatter.take_in_order(mask.as_subclass(OnDevice), rows, torch.device("cpu"))
    picked = picked.as_subclass(torch.Tensor)
    assert picked[0].tolist() == [1, 2] and picked[2].tolist() == [3, 4] and picked[3].isnan().all()


def test_many_places_are_counted_exactly():
    """Counting in fp16 is exact only up to 2048, in bf16 up to 256."""
    mask = torch.ones(1, 5000, dtype=torch.bool)
    source = torch.arange(5000.0)[:, None].expand(5000, 2)
    for name, function in PLACE.items():
        assert torch.equal(function(torch.zeros(1, 5000, 2), mask, source)[0], source), name
