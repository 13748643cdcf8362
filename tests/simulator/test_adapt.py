"""A transformers model on a device without convolution and masked_scatter_: refused, then adapted."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.course import example_llava as tiny_llava
from deskocr_kit.operators.adapt.module import adapt
from tests.helpers.guests import GUESTS, numbers

NPU = torch.device("npu:0")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scatter", ["cumsum_where", "cpu_fallback"])
def test_llava_where_both_are_believed_to_be_missing(scatter):
    model, given = tiny_llava.build_llava(), tiny_llava.llava_inputs()
    want = tiny_llava.tokens(model, given)
    model.to(NPU)
    given = {name: each.to(NPU) for name, each in given.items()}
    with simulator.using("as-believed"):
        with pytest.raises(NotImplementedError, match="aten::convolution"):
            tiny_llava.tokens(model, given)
        with (
            pytest.raises(NotImplementedError, match="aten::masked_scatter_"),
            adapt(model, {"conv2d": "unfold_einsum"}),
        ):
            tiny_llava.tokens(model, given)
        with (
            adapt(model, {"conv2d": "unfold_einsum", "masked_scatter_": scatter}),
            simulator.record() as seen,
        ):
            assert torch.equal(tiny_llava.tokens(model, given), want)
        assert seen.refused == seen.fallbacks == 0
        with pytest.raises(NotImplementedError, match="aten::convolution"):  # and undone
            tiny_llava.tokens(model, given)


def test_hard_coded_cuda_goes_to_the_npu():
    class Habit(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.cuda()) + torch.ones(3).to("cuda:0")

    model = Habit(2, 3).to(NPU)
    with adapt(model, {}) as adapted:
        assert model(torch.ones(1, 2)).device == NPU and model.cuda() is model
        assert next(model.parameters()).device == NPU
    assert adapted.redirected >= 3
    with pytest.raises((AssertionError, RuntimeError)):
        model(torch.ones(1, 2))


def test_cumsum_where_waits_for_nothing():
    """With the mask on the device, by rows and by element, in place and into a new tensor."""
    from deskocr_kit.operators.substitutes.registry import candidates

    embeds, source = torch.randn(2, 9, 6).to(NPU), torch.randn(7, 6).to(NPU)
    mask = torch.zeros(2, 9, dtype=torch.bool)
    mask[0, 1:5] = mask[1, 4:7] = True
    want = embeds.cpu().masked_scatter(mask[..., None], source.cpu())
    on_device = mask.to(NPU)
    with simulator.using("as-published"), simulator.record() as seen:
        placed = candidates("place_images")["cumsum_where"](embeds, on_device, source)
        for i, rows in enumerate(source.split([4, 3])):
            candidates("masked_scatter_")["cumsum_where"](embeds[i], on_device[i][:, None], rows)
    assert (seen.syncs, seen.d2h_copies, seen.fallbacks, seen.ai_cpu) == (0, 0, 0, 0)
    assert torch.equal(placed.cpu(), want) and torch.equal(embeds.cpu(), want)


def test_a_missing_row_on_a_device_is_nan():
    from deskocr_kit.operators.substitutes.registry import candidates

    mask = torch.tensor([[True, True, False]]).to(NPU)
    out = candidates("place_images")["cumsum_where"](
        torch.zeros(1, 3, 2).to(NPU), mask, torch.ones(1, 2).to(NPU)
    )
    assert out.cpu()[0, 0].tolist() == [1, 1] and out.cpu()[0, 1].isnan().all()


@pytest.mark.parametrize("slot", ["moe", "rel_pos_attention"])
def test_substitutes_that_promise_not_to_wait(slot):
    from deskocr_kit.operators.substitutes.registry import candidates

    torch.manual_seed(0)
    ids = torch.tensor([[0, 3], [3, 1], [2, 3]])
    args = {
        "moe": (torch.randn(3, 16), torch.randn(9, 24, 16), torch.randn(9, 16, 12), ids, torch.rand(3, 2)),
        "rel_pos_attention": (*torch.randn(3, 1, 2, 16, 8), torch.randn(4, 4, 8), torch.randn(4, 4, 8)),
    }[slot]
    promised = {
        "moe": ["gathered"],
        "rel_pos_attention": ["chunked", "folded_products", "folded"],
    }
    on_device = [a.to(NPU) if torch.is_tensor(a) else a for a in args]
    for name in promised[slot]:
        function = candidates(slot)[name]
        with simulator.using("as-published"), simulator.record() as seen:
            out = function(*on_device)
        assert (seen.syncs, seen.fallbacks, seen.ai_cpu) == (0, 0, 0), (name, seen)
        torch.testing.assert_close(out.cpu(), candidates(slot)["reference"](*args), atol=1e-4, rtol=1e-4)


GUESTS_HERE = ("whisper", "qwen2-vl", "convnext", "sam")  # one, two, three dimensions, depthwise, transposed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GUESTS_HERE)
@torch.no_grad()
def test_towers_where_convolution_is_believed_to_be_missing(name):
    model, given = GUESTS[name].build(), GUESTS[name].given()
    want = numbers(model(**given))
    model.to(NPU)
    given = {key: each.to(NPU) for key, each in given.items()}
    with simulator.using("as-believed"):
        with pytest.raises(NotImplementedError, match="aten::convolution"):
            model(**given)
        with adapt(model, {"conv2d": "im2row"}), simulator.record() as seen:
            ours = numbers(model(**given))
        assert seen.refused == 0
    for a, b in zip(ours, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_the_ladder_names_the_operator_that_the_device_refuses():
    """Not the copy that brought the inputs to the device."""
    from deskocr_kit.compare.ladder import climb

    reference, given = tiny_llava.build_llava(), tiny_llava.llava_inputs()
    candidate = tiny_llava.build_llava().to(NPU)
    run = lambda model: model(**{name: each.to(model.device) for name, each in given.items()})  # noqa: E731
    with simulator.using("as-believed"):
        first = climb(reference, candidate, run).first
    assert "patch_embedding" in first.module and first.operator == "aten::convolution", first
    assert "raises NotImplementedError" in first.what, first
