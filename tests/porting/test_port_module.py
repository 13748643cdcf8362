"""port_module: device and dtype, what stays in fp32, ties, and tensors that `.to` leaves behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn
import transformers as t

from deskocr_kit import climb, make_run, port_module
from deskocr_kit.device import DeviceError
from tests.helpers.guest_models import TEXT

META = torch.device("meta")  # a second device on every machine


class Net(nn.Module):
    """Tied weights, buffers of each kind, and tensors that are plain attributes."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("frequencies", 1e4 ** -(torch.arange(4) / 4), persistent=False)
        self.register_buffer("places", torch.arange(4), persistent=False)
        self.scale = torch.full((4,), 2.0)
        self.anchors = [torch.ones(1), {"deep": (torch.zeros(1), "text")}]

    def forward(self, ids):
        x = self.norm(self.embed(ids)) * self.scale.to(self.embed.weight.dtype)
        return self.head(x + (self.frequencies * self.places).to(x.dtype))


def test_frequencies_stay_exact_and_weights_stay_tied():
    model = Net().eval()
    before = copy.deepcopy(model.state_dict())
    moved = port_module(model, "cpu", "bf16")
    ported = moved.module
    assert ported.head.weight is ported.embed.weight and ported.embed.weight.dtype == torch.bfloat16
    assert torch.equal(ported.frequencies, model.frequencies) and ported.places.dtype == torch.int64
    assert ported.norm.running_mean.dtype == torch.bfloat16, "a part of the state dict, as a loader has it"
    assert moved.kept == ["frequencies"] and moved.dtype == torch.bfloat16
    assert "in float32: frequencies" in repr(moved)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert make_run(torch.tensor([[1, 2]][0]))(ported).dtype == torch.bfloat16


def test_tensors_that_to_leaves_behind_are_moved_and_named():
    model = Net()
    moved = port_module(model, META, torch.float16)
    assert moved.left_behind == ["scale", "anchors[0]", "anchors[1]['deep'][0]"]
    ported = moved.module
    assert ported.scale.device == ported.anchors[1]["deep"][0].device == ported.embed.weight.device == META
    assert ported.anchors[1]["deep"][1] == "text" and ported.scale.dtype == torch.float16
    assert model.scale.device.type == model.anchors[0].device.type == "cpu", "the original stays"
    assert "make them buffers" in repr(moved)


def test_what_to_keep_can_be_chosen():
    model = Net()
    assert port_module(model, "cpu", "fp16", keep=["norm"]).kept == [
        "norm.bias", "norm.running_mean", "norm.running_var", "norm.weight",
    ]  # fmt: skip
    none = port_module(model, "cpu", "fp16", keep=())
    assert none.kept == [] and none.module.frequencies.dtype == torch.float16
    assert port_module(model, "cpu").module.embed.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="no floating parameter or buffer 'norms'"):
        port_module(model, "cpu", "fp16", keep=["norms"])
    with pytest.raises(ValueError, match="unknown dtype"):
        port_module(model, "cpu", "fp8")
    with pytest.raises(DeviceError):
        port_module(model, "tpu", "fp16")


def test_in_place_and_without_parameters():
    model = Net()
    assert (
        port_module(model, "cpu", "fp16", in_place=True).module is model
        and model.head.weight.dtype == torch.half
    )
    assert port_module(nn.ReLU(), "cpu", "fp16").kept == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_as_transformers_loads_it(dtype, tmp_path):
    """The same dtypes as from_pretrained(dtype=…): rotary frequencies and T5's `wo` in fp32."""
    torch.manual_seed(0)
    text = t.Qwen2ForCausalLM(t.Qwen2Config(**TEXT))
    t5 = t.T5ForConditionalGeneration(
        t.T5Config(
            d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=50, decoder_start_token_id=0
        )
    )
    for model in (text, t5):
        model.save_pretrained(tmp_path / type(model).__name__)
        asked = {"dtype" if t.__version__ >= "5" else "torch_dtype": dtype}
        loaded = type(model).from_pretrained(tmp_path / type(model).__name__, **asked)
        ported = port_module(model, "cpu", dtype).module
        for kind in ("named_parameters", "named_buffers"):
            expected = {name: tensor.dtype for name, tensor in getattr(loaded, kind)()}
            assert {name: tensor.dtype for name, tensor in getattr(ported, kind)()} == expected


def test_rotary_frequencies_are_right_at_the_end_of_a_page():
    """Rounded to bf16 they are off by a radian at position 1000: `.to` alone fails, port_module does not."""
    torch.manual_seed(0)
    own = {**TEXT, "hidden_size": 64, "max_position_embeddings": 2048, "num_hidden_layers": 1}
    model = t.Qwen2ForCausalLM(t.Qwen2Config(**own)).eval()
    run = make_run({"input_ids": torch.randint(2, 99, (1, 1000))})
    right, wrong = port_module(model, "cpu", "bf16").module, copy.deepcopy(model).bfloat16()
    angles = {}
    for name, each in (("reference", model), ("right", right), ("wrong", wrong)):
        each.model.rotary_emb.register_forward_hook(
            lambda m, i, out, name=name: angles.update({name: out[0]})
        )
        with torch.no_grad():
            run(each)
    assert (angles["right"].float() - angles["reference"]).abs().max() < 1e-2
    assert (angles["wrong"].float() - angles["reference"]).abs().max() > 0.1
    assert climb(model, right, run).ok
