"""Modules on the simulated device: moving, loading, saving, training steps."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from deskocr_kit import simulator

NPU = torch.device("npu:0")


def test_module_to_and_back():
    module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.LayerNorm(8)).eval()
    x = torch.randn(5, 4)
    expected, ids = module(x), [id(p) for p in module.parameters()]
    module.to("npu")
    assert [id(p) for p in module.parameters()] == ids  # parameters remain the same objects
    assert {t.device for t in (*module.parameters(), *module.buffers())} == {NPU}
    torch.testing.assert_close(module(x.npu()).cpu(), expected)
    torch.testing.assert_close(module.cpu()(x), expected)
    module.to(NPU).half()
    assert module[0].weight.dtype is torch.float16 and nn.Linear(2, 2).npu().weight.device == NPU


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

    module = Tied().to(NPU)
    assert module.a.weight is module.b.weight


def test_swapping_parameters_on_conversion():
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module = nn.Linear(3, 3)
        weight = module.weight
        module.to(NPU)
        assert module.weight is weight and weight.device == NPU
        assert module(torch.ones(1, 3, device=NPU)).isfinite().all().item()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


PLACES = {
    "as saved": (None, "npu"),
    "cpu": ("cpu", "cpu"),
    "npu:0": ("npu:0", "npu"),
    "device": (NPU, "npu"),
    "npu": ("npu", "npu"),
    "table": ({"npu:0": "cpu"}, "cpu"),
    "function": (lambda storage, location: storage, "cpu"),
}


@pytest.mark.parametrize(("place", "expected"), PLACES.values(), ids=PLACES)
def test_torch_save_and_load(place, expected):
    x = torch.randn(3, 4, device=NPU)
    file = io.BytesIO()
    torch.save({"x": x, "view": x[1:], "state": nn.Linear(3, 2).to(NPU).state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, map_location=place, weights_only=not callable(place))
    assert loaded["x"].device.type == expected and loaded["state"]["weight"].device.type == expected
    assert torch.equal(loaded["x"].cpu(), x.cpu()) and torch.equal(loaded["view"].cpu(), x[1:].cpu())
    loaded["x"].zero_()
    assert not loaded["view"].any()  # the view still shares memory with its base


def test_a_cpu_file_loads_onto_the_device():
    file = io.BytesIO()
    torch.save(torch.ones(3), file)
    file.seek(0)
    assert torch.load(file, map_location="npu:0").device == NPU


def test_state_dicts():
    module = nn.Linear(3, 2).to(NPU)
    module.load_state_dict({k: torch.ones_like(v).cpu() for k, v in module.state_dict().items()})
    assert module.weight.sum().item() == 6
    other = nn.Linear(3, 2, device=NPU)
    other.load_state_dict(module.state_dict(), assign=True)
    assert other.weight.device == NPU and other.weight.sum().item() == 6
    with torch.device("meta"):
        hollow = nn.Linear(3, 2)
    assert hollow.to_empty(device=NPU).weight.device == NPU


def test_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(3, 2, device=NPU)}, path)
    loaded = load_file(path, device="npu:0")["a"]
    assert loaded.device == NPU and loaded.sum().item() == 6
    with safe_open(path, "pt", device="npu:0") as file:
        assert file.get_tensor("a").device == NPU


def test_deepcopy_of_a_module():
    module = nn.Linear(2, 2).to(NPU)
    copied = copy.deepcopy(module)
    copied.weight.data.zero_()
    assert copied.weight.device == NPU and module.weight.any().item()


def test_backward_and_optimiser():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1)), torch.randn(5, 4)
    module(x).sum().backward()
    expected = [p.grad.clone() for p in module.parameters()]
    module.zero_grad()
    module.to(NPU)
    module(x.npu()).sum().backward()
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad.cpu(), gradient)
    before = module[0].weight.clone()
    torch.optim.AdamW(module.parameters()).step()
    assert not torch.equal(module[0].weight, before)


def test_gradients_through_operators_that_are_one_kernel():
    def run(device):
        torch.manual_seed(0)
        q = torch.randn(1, 2, 4, 8).to(device).requires_grad_()
        y = F.scaled_dot_product_attention(q, q, q).softmax(-1) @ q.transpose(-1, -2)
        y.pow(2).sum().backward()
        return q.grad.cpu()

    torch.testing.assert_close(run(NPU), run("cpu"))


def test_grad_mode():
    module = nn.Linear(4, 4).to(NPU)
    y = module(torch.ones(1, 4, device=NPU))
    assert y.requires_grad and y.grad_fn is not None and not y.detach().cpu().requires_grad
    with pytest.raises(RuntimeError, match="leaf"):
        module.weight.add_(1)
    with torch.inference_mode():
        z = module(torch.ones(2, 4, device=NPU))
        z[0].add_(1)
        assert z.is_inference() and z.view(-1).cpu().shape == (8,)


@pytest.mark.parametrize(
    "layer", [nn.LSTM(4, 3, 2, bidirectional=True), nn.LSTM(4, 3), nn.GRU(4, 3), nn.RNN(4, 3)]
)
def test_recurrent_layers_and_their_gradients(layer):
    """torch_npu has one kernel for a whole LSTM or GRU; PyTorch alone would decompose it into cells."""
    x, twin = torch.randn(5, 2, 4), copy.deepcopy(layer).to(NPU)
    with torch.no_grad(), simulator.record() as seen:
        torch.testing.assert_close(twin(x.to(NPU))[0].cpu(), layer(x)[0])
    if not isinstance(layer, nn.RNN):
        assert seen.by_operator("launch")[f"aten::{type(layer).__name__.lower()}.input"] == 1
    twin(x.to(NPU))[0].sum().backward()
    layer(x)[0].sum().backward()
    for ours, theirs in zip(twin.parameters(), layer.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad)


def test_a_cell_of_an_lstm():
    cell, x = nn.LSTMCell(4, 3), torch.randn(2, 4)
    with torch.no_grad():
        for ours, theirs in zip(copy.deepcopy(cell).to(NPU)(x.to(NPU)), cell(x), strict=True):
            torch.testing.assert_close(ours.cpu(), theirs)
