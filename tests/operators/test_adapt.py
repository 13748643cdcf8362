"""Plans for other models: the exchanged operators, equal results, and that everything is undone."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from deskocr_kit.course import example_llava as tiny_llava
from deskocr_kit.operators.adapt.module import adapt
from deskocr_kit.operators.plan import Plan, PlanError
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


# ---------------------------------------------------------------------- convolutions called as functions
class LinearAttention(nn.Module):
    """As in Qwen 3.5: the Conv1d only holds the weight, and F.conv1d is called."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv1d = nn.Conv1d(4, 8, 1), nn.Conv1d(8, 8, 4, groups=8, bias=False)

    def forward(self, x):
        return F.conv1d(self.stem(x), self.conv1d.weight, padding=3, groups=8)


def test_a_convolution_called_as_a_function_is_exchanged_and_its_idle_layer_is_not():
    model, x = LinearAttention().eval(), torch.randn(1, 4, 9)
    want, said = model(x), []

    def watched(x, weight, bias, stride, padding, dilation=(1, 1), groups=1):
        said.append((tuple(weight.shape), groups))
        return candidates("conv2d")["im2row"](x, weight, bias, stride, padding, dilation, groups)

    with adapt(model, {"conv2d": watched}) as adapted:
        torch.testing.assert_close(model(x), want)
        assert said == [((8, 4, 1, 1), 1), ((8, 1, 1, 4), 8)]
        assert set(adapted.exchanged) == {"stem", "F.conv1d"} and adapted.not_called == ["conv1d"]
        assert "watched as F.conv1d, at operators/test_adapt.py" in adapted.exchanged["F.conv1d"]
        assert "conv1d: its forward is never called" in repr(adapted)
    assert model(x).equal(want) and len(said) == 2


def test_the_proof_names_it():
    from deskocr_kit.operators.prove.module_probes import probes_of

    found, notes = probes_of(LinearAttention().eval(), lambda m: m(torch.randn(1, 4, 9)))
    assert {probe.name for probe in found if probe.real} == {"stem", ""} and not notes


FUNCTIONS = {
    "conv1d": lambda x, w: F.conv1d(x[..., 0], w[..., 0], None, 2, 1),
    "conv2d": lambda x, w: F.conv2d(x, w, stride=2, padding="valid", dilation=2),
    "conv2d, same": lambda x, w: F.conv2d(x, w, torch.ones(4), padding="same", dilation=(2, 1)),
    "conv2d of torch": lambda x, w: torch.conv2d(input=x, weight=w[:, :2], groups=2),
    "one picture": lambda x, w: F.conv2d(x[0], w),
    "conv3d": lambda x, w: F.conv3d(x[:, :, None], w[:, :, None], padding=(0, 1, 1)),
    "conv_transpose1d": lambda x, w: F.conv_transpose1d(x[..., 0], w[..., 0], stride=2, output_padding=1),
    "conv_transpose2d": lambda x, w: F.conv_transpose2d(x, w, None, (2, 1), 1, dilation=2),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_torch(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))

        def forward(self, x):
            return FUNCTIONS[name](x, self.weight)

    torch.manual_seed(0)
    model, x = Net(), torch.randn(2, 4, 8, 9)
    with torch.no_grad():
        want = model(x)
        with adapt(model, {"conv2d": "im2row"}) as adapted:
            ours = model(x)
            assert len(adapted.exchanged) == 1, adapted
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)
    assert ours.is_contiguous() == want.is_contiguous()


def test_a_subclass_that_ends_in_super_is_exchanged_by_its_call():
    class Own(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 2

    model, x = nn.Sequential(Own(3, 3, 1), nn.ConvTranspose3d(1, 1, 1)), torch.randn(1, 3, 4, 4)
    with adapt(model, {"conv2d": "im2row"}) as adapted:
        assert "0" in adapted.left and "0" not in adapted.exchanged
        model(x)
    assert "0: F.conv2d" in adapted.exchanged and "0" not in adapted.left
    assert "volumes" in adapted.left["1"]


def test_only_the_adapted_module_is_changed():
    """A reference on the same device, also while a block is open, and functions outside every forward."""
    model, other, said = LinearAttention(), LinearAttention(), []
    watched = lambda x, w, b, s, p, dilation=(1, 1), groups=1: (
        said.append(1) or torch.conv2d(x, w, b, s, p, dilation, groups)
    )  # noqa: E731, E501
    with adapt(model, {"conv2d": watched}):
        other(torch.randn(1, 4, 9))
        F.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1))
        assert said == []
        model(torch.randn(1, 4, 9))
        assert len(said) == 2, "a substitute that calls torch is not called again for that"
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 3, 9))
        F.conv2d(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1))
        assert len(said) in (2, 3), "an exception leaves no module running"
    before = len(said)
    model(torch.randn(1, 4, 9))
    assert len(said) == before


def test_groups_that_a_substitute_cannot_take_are_left_and_named():
    plain = lambda x, weight, bias, stride, padding: torch.conv2d(x, weight, bias, stride, padding)  # noqa: E731
    model = LinearAttention()
    with adapt(model, {"conv2d": plain}) as adapted:
        model(torch.randn(1, 4, 9))
    assert "groups" in adapted.left["F.conv1d"] and list(adapted.exchanged) == ["stem"]


# ---------------------------------------------------------------------- plans that do not fit, and CUDA
def test_a_plan_without_the_modules_dtype_is_refused():
    plan = Plan({}, {"float16": {"conv2d": {"*": {"use": "im2row"}}}}, {})
    before = state()
    with pytest.raises(PlanError, match="it has choices for float16, and the module is in float32"):
        adapt(Vision(), plan)
    with pytest.raises(PlanError, match="no dtype"):
        adapt(Vision(), Plan({}, {}, {}))
    assert state() == before
    mixed = Vision().half()
    mixed.deep[4].float()  # one part in fp32, as in models that keep their norms exact
    adapt(mixed, plan).undo()


def test_factories_that_name_cuda():
    class Habit(nn.Module):
        def forward(self, x):
            here = torch.zeros(2, device="cuda") + torch.arange(2, device=torch.device("cuda", 0))
            there = x.new_ones(2, device="cuda:0") + torch.ones_like(x[0], device="cuda")
            return here + there + torch.tensor([1.0, 2.0], device="cuda") + torch.full((2,), 3, device="cuda")

    before = [getattr(torch, name) for name in ("zeros", "arange", "ones_like", "tensor", "full")]
    with adapt(Habit(), {}) as adapted:
        out = Habit()(torch.ones(1, 2))
        assert torch.zeros(1, device="meta").is_meta, "other devices stay"
    assert out.tolist() == [6.0, 8.0] and out.device.type == "cpu" and adapted.redirected == 6
    assert [getattr(torch, name) for name in ("zeros", "arange", "ones_like", "tensor", "full")] == before
    with pytest.raises((AssertionError, RuntimeError)):
        Habit()(torch.ones(1, 2))
