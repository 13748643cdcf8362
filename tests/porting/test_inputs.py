"""make_run: any form of inputs, any form of output, modules without .device; errors that name what to do."""

from __future__ import annotations

from collections import UserDict, namedtuple

import pytest
import torch
import torch.nn as nn
from transformers import BatchFeature

from deskocr_kit import make_run, missing, shapes
from deskocr_kit.device.module_place import place_of
from deskocr_kit.porting.left_behind import MIXED, explained

Pair = namedtuple("Pair", "first logits")


class Adder(nn.Module):
    """A plain module: x (b, 3) + y, times a weight."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x, y):
        return self.line(x + y)


X, Y = torch.ones(1, 3), torch.arange(3.0)[None]
FORMS = {
    "dict": {"x": X, "y": Y},
    "tuple": (X, Y),
    "list": [X, Y],
    "BatchFeature": BatchFeature({"x": X, "y": Y}),
    "UserDict": UserDict({"x": X, "y": Y}),
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_every_form_of_inputs_in_the_modules_dtype(form):
    model, run = Adder(), make_run(FORMS[form])
    assert torch.equal(run(model), model(X, Y))
    assert run(model.double()).dtype == torch.float64 and run(model.to("meta")).is_meta
    assert shapes(FORMS[form]) in ({"x": (1, 3), "y": (1, 3)}, [(1, 3), (1, 3)])


def test_one_tensor_and_integers_stay_integers():
    ids = torch.tensor([1, 2])
    assert make_run(ids)(nn.Embedding(3, 4).half()).dtype == torch.float16
    assert shapes(ids) == (2,) and shapes([ids, "text", None]) == [(2,), "text", None]


class Gives(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return self.value


A, B, IDS = torch.zeros(1), torch.ones(1), torch.tensor([1])


@pytest.mark.parametrize(
    ("value", "output", "expected"),
    [
        (A, None, A), ((IDS, A, B), None, A), ({"loss": A, "logits": B}, None, B), (Pair(A, B), None, B),
        ((A, [B]), 0, A), ({"masks": B, "ids": IDS}, "masks", B), (Pair(A, B), "first", A),
        ([IDS, {"deep": B}], None, B), ({"x": (A, B)}, lambda out: out["x"][1], B),
    ],
)  # fmt: skip
def test_the_output_that_matters(value, output, expected):
    assert make_run(X, output)(Gives(value)) is expected


def test_an_output_that_is_not_there():
    with pytest.raises(ValueError, match="the output has no 'masks'; it has: logits"):
        make_run(X, "masks")(Gives({"logits": A}))
    with pytest.raises(ValueError, match="returned a str without a floating tensor: pass output="):
        make_run(X)(Gives("text"))


def test_the_place_of_a_module():
    assert place_of(nn.ReLU()) == (torch.device("cpu"), torch.float32)
    mixed = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 40).half())
    assert place_of(mixed) == (torch.device("cpu"), torch.float16)
    buffers = nn.Module()
    buffers.register_buffer("table", torch.ones(2, dtype=torch.bfloat16, device="meta"))
    assert place_of(buffers) == (torch.device("meta"), torch.bfloat16)


def test_a_tensor_left_behind_is_named_whatever_the_words():
    model = Adder().to("meta")
    model.scale = torch.ones(2)
    for words in MIXED:
        text = str(explained(RuntimeError(f"{words}: x\nmore"), model, torch.device("meta")))
        assert text.startswith(f"Adder on meta: {words}: x Left behind: scale.") and "register_buffer" in text
    assert explained(RuntimeError("shapes do not fit"), model, torch.device("meta")) is None
    assert "created in its forward" in str(explained(RuntimeError(MIXED[0]), Adder(), torch.device("cpu")))


def test_missing_raises_it_too():
    model = Adder()

    def mixes(module):
        raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices")

    with pytest.raises(RuntimeError, match="Adder on cpu: Expected all tensors .* created in its forward"):
        missing(mixes, model)
    assert missing(lambda m: m(X, Y), model) == {}
