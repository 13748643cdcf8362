"""adapt on other towers: one, two and three dimensions, depthwise, dilated and transposed."""

from __future__ import annotations

import copy
import io
import itertools
import random

import pytest
import torch
import torch.nn as nn

from deskocr_kit.operators.adapt.module import adapt
from tests.helpers.guests import GUESTS, numbers

PLANS = [{"conv2d": name} for name in ("unfold_einsum", "patchify", "im2row")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GUESTS)
@torch.no_grad()
def test_guests_compute_what_they_did(name):
    guest = GUESTS[name]
    model, given = guest.build(), guest.given()
    want, keys = numbers(model(**given)), list(model.state_dict())
    for plan in PLANS:
        with adapt(model, plan) as adapted:
            ours = numbers(model(**given))
            assert list(model.state_dict()) == keys
        assert len(adapted.prepared) == guest.convolutions and not adapted.left, adapted
        assert set(adapted.exchanged) == set(adapted.prepared) - set(adapted.not_called) != set()
        for a, b in zip(ours, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(numbers(model(**given)), want, strict=True):
        assert torch.equal(a, b), "and everything is back"


LAYERS = [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3), (nn.ConvTranspose1d, 1), (nn.ConvTranspose2d, 2)]


@pytest.mark.parametrize(("kind", "dims"), LAYERS, ids=lambda v: getattr(v, "__name__", ""))
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_any_layer_and_its_gradients(kind, dims):
    draw, transposed = random.Random(dims), kind.__name__.startswith("ConvTranspose")
    for seed in range(30):
        torch.manual_seed(seed)
        pick = lambda *numbers: tuple(draw.choice(numbers) for _ in range(dims))  # noqa: E731
        options = {
            "kernel_size": pick(1, 2, 3), "stride": pick(1, 2, 3), "groups": draw.choice([1, 1, 2, 4]),
            "dilation": draw.choice([(1,) * dims, pick(1, 2)]), "bias": draw.random() < 0.5,
        }  # fmt: skip
        if transposed:
            options["padding"] = pick(0, 1)
            options["output_padding"] = tuple(
                draw.randrange(max(s, d)) for s, d in zip(options["stride"], options["dilation"], strict=True)
            )
        else:
            options["padding"] = draw.choice([pick(0, 1), "valid"])
            options["padding_mode"] = draw.choice(["zeros", "zeros", "reflect", "circular"])
            if draw.random() < 0.3:
                options |= {"padding": "same", "stride": 1}
        layer = kind(4, 8, **options)
        x = torch.randn(*([2] if draw.random() < 0.8 else []), 4, *(draw.randint(7, 9) for _ in range(dims)))
        x.requires_grad_()

        def gradients(layer=layer, x=x):
            y = layer(x)
            leaves = [x, *layer.parameters()]
            return [
                y,
                *torch.autograd.grad((y * torch.linspace(0, 1, y.numel()).view(y.shape)).sum(), leaves),
            ]

        want = gradients()
        with adapt(layer, {"conv2d": draw.choice(["unfold_einsum", "im2row", "patchify"])}) as adapted:
            ours = gradients()
        assert adapted.exchanged, options
        for a, b in zip(ours, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda m: f"{m}\n{options}")  # noqa: B023


def test_a_transposed_layer_may_be_told_its_size():
    layer, x = nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1), torch.randn(2, 3, 6, 7)
    want = layer(x, output_size=[12, 13])
    with adapt(layer, {"conv2d": "im2row"}):
        torch.testing.assert_close(layer(x, output_size=[12, 13]), want, rtol=1e-4, atol=1e-5)


def test_what_stays_with_torch_is_named():
    model = nn.Sequential(nn.ConvTranspose3d(2, 2, 1), nn.Conv1d(2, 2, 1))
    with adapt(model, {"conv2d": "im2row"}) as adapted:
        assert list(adapted.exchanged) == ["1"] and "volumes" in adapted.left["0"]
    assert "0: left alone, a transposed convolution" in repr(adapted)


# ---------------------------------------------------------------------- what a module goes through
class Net(nn.Module):
    """Shared layer, tied weights, a hook, batch norm and dropout for train mode."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.3)
        self.shared = nn.Conv2d(4, 4, 1)
        self.again = self.shared
        self.tied = nn.Conv2d(4, 4, 1)
        self.tied.weight = self.shared.weight
        self.up, self.line = nn.ConvTranspose2d(4, 2, 2, 2), nn.Conv1d(2, 2, 3)
        self.seen = []
        self.first.register_forward_hook(lambda *_: self.seen.append("hook"))

    def forward(self, x):
        x = self.drop(self.norm(self.first(x)))
        x = self.up(self.tied(self.again(self.shared(x))))
        return self.line(x.flatten(2))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


X = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)


def trained(net):
    """Output and gradients of one step in train mode."""
    torch.manual_seed(5)
    net.train().zero_grad()
    y = net(X)
    y.square().mean().backward()
    return [y.detach(), *(p.grad.clone() for p in net.parameters())]


def test_training_ties_and_hooks(net):
    other = copy.deepcopy(net)
    want, names = trained(other), list(net.state_dict())
    net.seen.clear()  # the hook of the copy writes here too
    with adapt(net, {"conv2d": "im2row"}) as adapted:
        ours = trained(net)
        assert set(adapted.exchanged) == {"first", "shared", "tied", "up", "line"}
        assert net.tied.weight is net.shared.weight and list(net.state_dict()) == names
        assert net.seen == ["hook"]
        net.load_state_dict(other.state_dict())
    for a, b in zip(ours, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_half_and_double_inside_a_block(net):
    net.eval()
    with torch.no_grad(), adapt(net, {"conv2d": "im2row"}):
        torch.testing.assert_close(net.double()(X.double()).float(), net.float()(X), rtol=1e-3, atol=1e-4)
        want = net(X)
        assert net.half()(X.half()).dtype == torch.float16
        torch.testing.assert_close(net(X.half()).float(), want, rtol=2e-2, atol=2e-2)


def test_a_copy_stands_on_its_own(net):
    net.eval()
    net.first._forward_hooks.clear()  # a lambda cannot be pickled
    want = net(X)
    with adapt(net, {"conv2d": "im2row"}):
        twin, stored = copy.deepcopy(net), io.BytesIO()
        torch.save(net, stored)
    stored.seek(0)
    loaded = torch.load(stored, weights_only=False)
    for copied in (twin, loaded):
        torch.testing.assert_close(copied(X), want, rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            copied.first.weight.zero_()
        assert not torch.allclose(copied(X), want), "its own weights, not those of the one it came from"
        copied.first.padding = (0, 0)
        assert copied.first(X).shape[-1] == 6, "and its own settings"
    assert torch.equal(net(X), want) and "_conv_forward" not in vars(net.first)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_blocks_end_in_any_order(net, order):
    net.eval()
    before = [vars(m).copy() for m in net.modules()], torch.Tensor.masked_scatter_, torch.Tensor.to
    want = net(X)
    said = []
    blocks = [
        adapt(net, {
            "conv2d": "im2row",
            "masked_scatter_": lambda x, mask, source, i=i: said.append(i) or x,
        })
        for i in range(3)
    ]  # fmt: skip
    open_ = [0, 1, 2]
    for i in order:
        torch.testing.assert_close(net(X), want, rtol=1e-4, atol=1e-5)
        torch.zeros(2).masked_scatter_(torch.ones(2).bool(), torch.ones(2))
        assert said.pop() == open_[-1], "the last block that is still open is in force"
        blocks[i].undo()
        blocks[i].undo()
        open_.remove(i)
    assert ([vars(m) for m in net.modules()], torch.Tensor.masked_scatter_, torch.Tensor.to) == before
    assert torch.zeros(2).masked_scatter_(torch.ones(2).bool(), torch.ones(2)).tolist() == [1, 1]


def test_the_guests_own_convolutions_are_proved():
    from deskocr_kit.operators.prove.module_probes import probes_of

    for name in ("whisper", "qwen2-vl", "convnext"):
        model, given = GUESTS[name].build(), GUESTS[name].given()
        found, notes = probes_of(model, lambda m, given=given: m(**given))
        real = [p for p in found if p.real]
        assert not notes
        assert len(real) == GUESTS[name].convolutions
        for probe in real:
            args = probe.make(torch.Generator())
            assert args[0].dim() == args[1].dim() == 4 and probe.name in dict(model.named_modules())
