"""Plans for other models: the exchanged operators, equal results, and that everything is undone."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn as nn

from deskocr_kit.course import example_llava as tiny_llava
from deskocr_kit.operators.adapt.module import adapt
from deskocr_kit.operators.substitutes.cases import ByCase
from deskocr_kit.operators.substitutes.registry import candidate, candidates

PLAN = {"conv2d": "unfold_einsum", "masked_scatter_": "cumsum_where"}
TORCH = [(torch.Tensor, "masked_scatter_"), (torch.Tensor, "masked_scatter"), (torch, "masked_scatter")]
CUDA = [(owner, name) for owner in (torch.Tensor, nn.Module) for name in ("cuda", "to")]


def state() -> list:
    """The attributes of torch that `adapt` may change, with their present values."""
    return [(owner.__dict__.get(name, "inherited"), getattr(owner, name)) for owner, name in TORCH + CUDA]


class Vision(nn.Module):
    """Convolutions of every kind, and two common lines that fail on an NPU."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.deep = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding="same"), nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False),
            nn.Conv2d(8, 6, 3, padding=2, dilation=2),
            nn.Conv2d(6, 6, (1, 3), padding_mode="circular", padding=(0, 1)),
            nn.Conv2d(6, 5, 2, padding="valid"),
        )  # fmt: skip

    def forward(self, x):
        y = self.deep(self.patch(x.cuda()))
        rows = y.flatten(2).transpose(1, 2)
        text = torch.zeros(len(x), rows.shape[1] + 3, rows.shape[2])
        mask = torch.zeros(text.shape[:2], dtype=torch.bool)
        mask[:, 1:-2] = True
        for i in range(len(x)):  # as in DeepSeek-OCR: in place on a row view
            text[i].masked_scatter_(mask[i].unsqueeze(-1).cuda(), rows[i].to("cuda"))
        return text + torch.masked_scatter(torch.zeros_like(text), mask[..., None], rows)


def expected(model, x):
    """The same without adapt, on a machine without CUDA: the two lines changed by hand."""
    with adapt(model, {}):
        return model(x)


@pytest.mark.parametrize("conv", [name for name in candidates("conv2d") if name != "reference"])
@pytest.mark.parametrize("scatter", candidates("masked_scatter_"))
def test_the_same_result_and_everything_back(conv, scatter):
    torch.manual_seed(0)
    model, x = Vision(), torch.randn(2, 3, 24, 32)
    before, own, names = state(), [vars(m).copy() for m in model.modules()], list(model.state_dict())
    want = expected(model, x)
    with adapt(model, {"conv2d": conv, "masked_scatter_": scatter}) as adapted:
        torch.testing.assert_close(model(x), want, atol=1e-5, rtol=1e-4)
        assert len(adapted.exchanged) == 6 and not adapted.left and adapted.redirected == 5
        assert list(model.state_dict()) == names and conv in repr(adapted)
    assert all(
        a is b for now, then in zip(state(), before, strict=True) for a, b in zip(now, then, strict=True)
    )
    assert [vars(m) for m in model.modules()] == own


def test_a_failure_inside_the_block_undoes_it_too():
    before, model = state(), Vision()
    with pytest.raises(ZeroDivisionError), adapt(model, PLAN):
        raise ZeroDivisionError
    assert state() == before and "_conv_forward" not in vars(model.patch)
    with pytest.raises(ValueError, match="no implementation 'magic'"):
        adapt(model, {"conv2d": "im2row", "masked_scatter_": "magic"})
    assert state() == before and "_conv_forward" not in vars(model.patch)


def test_blocks_may_be_nested():
    before, model, x = state(), Vision(), torch.randn(1, 3, 16, 16)
    want = expected(model, x)
    with adapt(model, {"conv2d": "im2row"}), adapt(model, PLAN):
        torch.testing.assert_close(model(x), want, atol=1e-5, rtol=1e-4)
    assert state() == before and "_conv_forward" not in vars(model.patch)


def test_what_cannot_be_exchanged_is_left_and_named():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    model = nn.Sequential(Own(3, 3, 1), nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 3, 1))
    plain = lambda x, weight, bias, stride, padding: torch.conv2d(x, weight, bias, stride, padding)  # noqa: E731
    with adapt(model, {"conv2d": plain}) as adapted:
        assert adapted.left == {
            "0": "Own defines its own forward", "1": "groups=3 is not supported by this implementation",
        }  # fmt: skip
        assert list(adapted.exchanged) == ["2"]
        model(torch.randn(1, 3, 8, 8))


def test_other_devices_keep_torchs_own():
    with adapt(nn.Linear(1, 1), {"masked_scatter_": lambda *_: 1 / 0}, device="meta"):
        x = torch.zeros(3).masked_scatter_(torch.tensor([True, False, True]), torch.ones(2))
    assert x.tolist() == [1, 0, 1]


def test_other_threads_see_it():
    """With a streamer, generate runs in a separate thread."""
    said = []
    with adapt(nn.Linear(1, 1), {"masked_scatter_": lambda x, mask, source: said.append(1)}):
        thread = threading.Thread(
            target=lambda: torch.zeros(2).masked_scatter_(torch.ones(2).bool(), torch.ones(2))
        )
        thread.start()
        thread.join()
    assert said == [1]


@pytest.mark.filterwarnings("ignore")
def test_llava_reads_the_same():
    model, given = tiny_llava.build_llava(), tiny_llava.llava_inputs()
    want = tiny_llava.tokens(model, given)
    said = []

    def watched(self, mask, source):
        said.append(tuple(self.shape))
        return candidates("masked_scatter_")["cumsum_where"](self, mask, source)

    with adapt(model, {"conv2d": "patchify", "masked_scatter_": watched}) as adapted:
        assert torch.equal(tiny_llava.tokens(model, given), want)
    assert len(adapted.exchanged) == 1 and "patch_embedding" in next(iter(adapted.exchanged))
    assert said, "this model does not use masked_scatter: the test would prove nothing"


def test_a_choice_by_kind_of_call_is_told_in_a_few_words():
    by_kind = ByCase(
        "conv2d",
        {
            "*": "im2row",
            "kernel 4x4 stride 4 padding 0": "patchify",
            "kernel 3x3 stride 1 padding 1": "im2row",
        },
        {
            "*": candidate("conv2d", "im2row"),
            "kernel 4x4 stride 4 padding 0": candidate("conv2d", "patchify"),
        },
    )
    with adapt(nn.Sequential(nn.Conv2d(3, 8, 4, 4)), {"conv2d": by_kind}) as adapted:
        assert adapted.exchanged == {"0": "im2row or patchify, 3, 8, kernel_size=(4, 4), stride=(4, 4)"}
