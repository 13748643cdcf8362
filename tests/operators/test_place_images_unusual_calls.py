"""Unusual calls of place_images and masked_scatter_, compared with torch's masked_scatter."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deskocr_kit.operators.substitutes.masked_scatter import out_of_place
from deskocr_kit.operators.substitutes.mismatch import Mismatch
from deskocr_kit.operators.substitutes.registry import candidates
from tests.helpers.unusual_calls import gradients, hold_to_the_rule, outcome, portable

torch.manual_seed(0)
r = torch.randn
PLACE, SCATTER = portable("place_images"), portable("masked_scatter_")
EMBEDS, PLACES = r(2, 5, 4), torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 0, 0]], dtype=torch.bool)
ROWS = r(4, 4)
ODD = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0]).repeat(4, 1)

CALLS = {
    "as it should be": (EMBEDS, PLACES, ROWS),
    "no batch": (EMBEDS[0], PLACES[0], ROWS[:3]),
    "one mask for the batch": (EMBEDS, PLACES[:1], r(6, 4)),
    "one value for the batch": (EMBEDS, torch.ones(1, 1, dtype=torch.bool), r(10, 4)),
    "a mask with a last dimension": (EMBEDS, PLACES[..., None], ROWS),
    "a mask of full shape": (EMBEDS, PLACES[..., None].expand(2, 5, 4), ROWS),
    "a mask of bytes": (EMBEDS, PLACES.byte(), ROWS),
    "a mask of numbers": (EMBEDS, PLACES.int(), ROWS),
    "a mask that is too long": (EMBEDS, torch.ones(2, 6, dtype=torch.bool), r(12, 4)),
    "no width": (EMBEDS[..., :0], PLACES, ROWS[:, :0]),
    "no sample": (EMBEDS[:0], PLACES[:0], ROWS[:0]),
    "no token": (EMBEDS[:, :0], PLACES[:, :0], ROWS[:0]),
    "no place": (EMBEDS, torch.zeros_like(PLACES), ROWS[:0]),
    "no row for four places": (EMBEDS, PLACES, ROWS[:0]),
    "too few rows": (EMBEDS, PLACES, ROWS[:3]),
    "too many rows": (EMBEDS, PLACES, r(5, 4)),
    "rows for no place": (EMBEDS, torch.zeros_like(PLACES), ROWS),
    "another dtype": (EMBEDS, PLACES, ROWS.half()),
    "wider rows": (EMBEDS, PLACES, r(4, 5)),
    "rows as pictures": (EMBEDS, PLACES, r(2, 2, 4)),
    "flat rows": (EMBEDS, PLACES, r(16)),
    "expanded embeddings": (r(1, 1, 4).expand(2, 5, 4), PLACES, ROWS),
    "expanded rows": (EMBEDS, PLACES, r(1, 4).expand(4, 4)),
    "turned": (r(4, 5, 2).permute(2, 1, 0), PLACES.t().contiguous().t(), r(4, 4).t()),
    "missing and infinite": (EMBEDS, PLACES, ODD),
    "whole numbers": (EMBEDS.long(), PLACES, ROWS.long()),
    "double": (EMBEDS.double(), PLACES, ROWS.double()),
    "bfloat16": (EMBEDS.bfloat16(), PLACES, ROWS.bfloat16()),
}


@pytest.mark.parametrize("name", PLACE)
def test_hard_calls(name):
    for call, args in CALLS.items():
        try:
            hold_to_the_rule("place_images", name, args)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from error


@pytest.mark.parametrize("name", [*PLACE, "reference"])
def test_what_is_refused(name):
    refused = {
        call
        for call, args in CALLS.items()
        if isinstance(outcome(candidates("place_images")[name], args), Exception)
    }
    assert refused == {
        "a mask with a last dimension", "a mask of full shape", "a mask of bytes", "a mask of numbers",
        "a mask that is too long", "no row for four places", "too few rows", "too many rows",
        "rows for no place", "another dtype", "wider rows", "rows as pictures", "flat rows",
    }  # fmt: skip


@pytest.mark.parametrize("name", [*PLACE, "reference"])
def test_refusals_say_what_to_do(name):
    place = candidates("place_images")[name]
    with pytest.raises(Mismatch, match=r"take mask\[\.\.\., 0\]"):
        place(EMBEDS, PLACES[..., None], ROWS)
    with pytest.raises(Mismatch, match=r"embeds float32, source float16; cast before the call"):
        place(EMBEDS, PLACES, ROWS.half())
    with pytest.raises(RuntimeError, match=None if name == "reference" else r"3 image rows for 4 places"):
        place(EMBEDS, PLACES, ROWS[:3])


@pytest.mark.parametrize("name", PLACE)
def test_placing_learns_and_infers(name):
    place, reference = candidates("place_images")[name], candidates("place_images")["reference"]
    args = (EMBEDS, PLACES, ROWS)
    for a, b in zip(gradients(place, args), gradients(reference, args), strict=True):
        torch.testing.assert_close(a, b)
    with torch.inference_mode():
        assert torch.equal(place(*args), reference(*args))
    assert place(*args).data_ptr() != EMBEDS.data_ptr()


def test_shapes_are_inferred_without_numbers():
    with FakeTensorMode() as mode:
        embeds, mask, rows = (mode.from_tensor(t) for t in (EMBEDS, PLACES, ROWS))
        assert candidates("place_images")["cumsum_where"](embeds, mask, rows).shape == EMBEDS.shape
        scatter = candidates("masked_scatter_")["cumsum_where"]
        assert scatter(embeds[0], mask[0, :, None], rows).shape == EMBEDS.shape[1:]


# ---------------------------------------------------------------------- in place
def both(name, prepare):
    """(ours, torch's): the base after the call, or the exception. prepare() -> base, self, mask, source."""
    results = []
    for function in (candidates("masked_scatter_")[name], torch.Tensor.masked_scatter_):
        torch.manual_seed(3)
        base, self, mask, source = prepare()
        said = outcome(function, (self, mask, source))
        results.append(said if isinstance(said, Exception) else base)
    return results


def views():
    """(name, base -> view): every kind of view that a caller may have."""
    return {
        "the base": lambda t: t, "a row": lambda t: t[1], "every second": lambda t: t[:, ::2],
        "turned": lambda t: t.transpose(0, 2), "flat": lambda t: t.view(-1), "a column": lambda t: t[..., 2],
        "a diagonal": lambda t: t.diagonal(0, 0, 1), "windows apart": lambda t: t.unfold(1, 2, 2),
        "of no size": lambda t: t[:, :0], "a number": lambda t: t[0, 0, 0], "unsqueezed": lambda t: t[None],
        "a part of the storage": lambda t: t.as_strided((3, 3), (4, 1), 5),
    }  # fmt: skip


@pytest.mark.parametrize("name", SCATTER)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64], ids=str
)
def test_every_view_changes_its_base(name, dtype):
    for what, view in views().items():
        for keep in ("full", "rows", "one"):

            def prepare(view=view, keep=keep):
                base = (torch.randn(3, 4, 5) * 9).to(dtype)
                self = view(base)
                rows = (*self.shape[:-1], 1) if self.dim() else ()
                mask = torch.rand({"full": self.shape, "rows": rows, "one": ()}[keep]) < 0.5
                return base, self, mask, (torch.randn(60) * 9).to(dtype)

            ours, expected = both(name, prepare)
            assert not isinstance(expected, Exception) and torch.equal(ours, expected), (what, keep)


BROKEN = {
    "expanded memory": lambda: ((b := r(3)), b.expand(2, 3), torch.ones(2, 3).bool(), r(6)),
    "too few": lambda: ((b := r(2, 3)), b, torch.ones(2, 3).bool(), r(5)),
    "none": lambda: ((b := r(2, 3)), b, torch.ones(2, 3).bool(), r(0)),
    "another dtype": lambda: ((b := r(2, 3)), b, torch.ones(2, 3).bool(), r(6).half()),
    "bytes": lambda: ((b := r(2, 3)), b, torch.ones(2, 3).byte(), r(6)),
    "a mask that does not broadcast": lambda: ((b := r(2, 3)), b, torch.ones(3, 3).bool(), r(9)),
    "a mask that is larger": lambda: ((b := r(3)), b, torch.ones(2, 3).bool(), r(6)),
    "a leaf that learns": lambda: ((b := r(2, 3).requires_grad_()), b, torch.ones(2, 3).bool(), r(6)),
}


@pytest.mark.filterwarnings("ignore:masked_scatter_ received a mask")
@pytest.mark.parametrize("name", SCATTER)
@pytest.mark.parametrize("what", BROKEN)
def test_broken_calls_raise_and_change_nothing(name, what):
    ours, expected = both(name, BROKEN[what])
    assert isinstance(expected, RuntimeError) and isinstance(ours, RuntimeError), (ours, expected)
    base, self, mask, source = BROKEN[what]()
    before = base.detach().clone()
    assert isinstance(outcome(candidates("masked_scatter_")[name], (self, mask, source)), RuntimeError)
    assert torch.equal(base.detach(), before)


@pytest.mark.parametrize("name", SCATTER)
def test_nothing_asked_is_no_error(name):
    for source in (r(0), r(5)):
        x = r(2, 3)
        before = x.clone()
        candidates("masked_scatter_")[name](x, torch.zeros(2, 1).bool(), source)
        assert torch.equal(x, before)


@pytest.mark.parametrize("name", SCATTER)
def test_the_mask_may_be_what_is_written(name):
    """`x.masked_scatter_(x, …)` of bools: values are read before they are overwritten."""
    flags, source = torch.tensor([True, False, True, True]), torch.tensor([False, True, False])
    expected = outcome(torch.Tensor.masked_scatter_, (flags.clone(), flags.clone(), source))
    own = flags.clone()
    ours = outcome(candidates("masked_scatter_")[name], (own, own, source))
    assert isinstance(ours, Exception) or torch.equal(ours, expected)


@pytest.mark.parametrize("name", SCATTER)
def test_what_learns_gets_torchs_gradients(name):
    mask = torch.tensor([[True, False, True], [False, True, True]])
    for shape in ((2, 3), (2, 1)):

        def total(function, x, source, shape=shape):
            y = x * 2
            function(y[0], mask[0] if shape == (2, 3) else mask[0, :1], source)
            return y

        def ours(x, source, total=total):
            return total(candidates("masked_scatter_")[name], x, source)

        def theirs(x, source, total=total):
            return total(torch.Tensor.masked_scatter_, x, source)

        x, source = r(2, 3), r(4)
        for a, b in zip(gradients(ours, (x, source)), gradients(theirs, (x, source)), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", SCATTER)
def test_out_of_place_and_inference_mode(name):
    scatter, mask = candidates("masked_scatter_")[name], PLACES[0][:, None]
    with torch.inference_mode():
        x = r(5, 4)
        assert torch.equal(out_of_place(scatter)(x, mask, ROWS), x.masked_scatter(mask, ROWS))
        assert scatter(x, mask, ROWS) is x
    wide = out_of_place(scatter)(r(4), torch.zeros(3, 1, dtype=torch.bool), ROWS)
    assert wide.shape == (3, 4)
