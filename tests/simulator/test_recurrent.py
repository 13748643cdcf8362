"""Recurrent layers, as in every CRNN: packed sequences, LSTM, GRU and RNN layers, and single cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn as nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from deskocr_kit import simulator

NPU = torch.device("npu:0")
LAYERS = [
    (nn.LSTM, {}), (nn.LSTM, {"bidirectional": True, "num_layers": 2}), (nn.LSTM, {"proj_size": 3}),
    (nn.GRU, {}), (nn.GRU, {"bidirectional": True, "num_layers": 2}), (nn.GRU, {"bias": False}),
    (nn.RNN, {"nonlinearity": "relu"}), (nn.RNN, {"bidirectional": True}),
]  # fmt: skip
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def names(value) -> str:
    return value.__name__ if isinstance(value, type) else " ".join(value) if isinstance(value, dict) else ""


def read(layer, x, lengths=None):
    """The outputs of a layer (batch first), those of a packed sequence padded again, and the last state."""
    with torch.no_grad():
        if lengths is None:
            out, state = layer(x)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, state = layer(packed)
            out, back = pad_packed_sequence(out, batch_first=True)
            assert back.is_cpu and torch.equal(back, lengths)
    return out, *(state if isinstance(state, tuple) else (state,))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("profile", ["as-published", "as-published-2.6.0"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 3, 4])], ids=["whole", "packed"])
@pytest.mark.parametrize(("kind", "options"), LAYERS, ids=names)
def test_layers_compute_what_the_cpu_does(kind, options, lengths, profile):
    torch.manual_seed(0)
    layer, x = kind(4, 6, batch_first=True, **options).eval(), torch.randn(3, 5, 4)
    want = read(layer, x, lengths)
    with simulator.using(profile):
        for dtype, tolerance in TOLERANCE.items():
            ours = read(layer.to(NPU, dtype), x.to(NPU, dtype), lengths)
            assert all(each.device == NPU and each.dtype == dtype for each in ours)
            for a, b in zip(ours, want, strict=True):
                torch.testing.assert_close(a.cpu().float(), b, rtol=tolerance, atol=tolerance)
            layer.float().cpu()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell], ids=names)
def test_cells_compute_what_the_cpu_does(kind, bias):
    torch.manual_seed(0)
    cell, x, state = kind(4, 6, bias=bias), torch.randn(3, 4), torch.randn(3, 6)
    state = (state, torch.randn(3, 6)) if kind is nn.LSTMCell else state
    with torch.no_grad(), simulator.using("as-published"):
        want = cell(x, state)
        moved = tuple(each.to(NPU) for each in state) if kind is nn.LSTMCell else state.to(NPU)
        ours = cell.to(NPU)(x.to(NPU), moved)
    for a, b in zip(*((each if isinstance(each, tuple) else (each,)) for each in (ours, want)), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.LSTM, nn.GRU], ids=names)
def test_forward_with_gradients_enabled(kind):
    """PyTorch then decomposes the layers to fused cells, which the CPU does not have."""
    torch.manual_seed(0)
    layer, x = kind(4, 6), torch.randn(3, 4)
    first = lambda out: out[0] if isinstance(out, tuple) else out  # noqa: E731
    torch.testing.assert_close(first(layer.to(NPU)(x.to(NPU))).cpu(), first(layer.cpu()(x)))


def test_lengths_stay_on_the_host_as_pytorch_wants_them():
    packed = pack_sequence([torch.ones(3, 2, device=NPU), torch.ones(1, 2, device=NPU)])
    assert (
        packed.data.device == NPU and packed.batch_sizes.tolist() == [2, 1, 1] and packed.batch_sizes.is_cpu
    )
    on_device = torch.tensor([3, 1], device=NPU)
    with pytest.raises(
        RuntimeError, match="'lengths' argument should be a 1D CPU int64 tensor, but got 1D npu:0"
    ):
        torch._VF._pack_padded_sequence(torch.ones(3, 2, 4, device=NPU), on_device, False)
    with pytest.raises(RuntimeError, match="'batch_sizes' argument should be a 1D CPU int64 tensor"):
        torch._VF._pad_packed_sequence(packed.data, packed.batch_sizes.to(NPU), False, 0.0, 3)


def test_a_packed_lstm_is_one_launch_and_a_packed_gru_a_loop():
    """lstm.data has a kernel in both wheels, gru.data in neither."""
    packed = pack_sequence([torch.ones(3, 4, device=NPU), torch.ones(1, 4, device=NPU)])
    with torch.no_grad(), simulator.using("as-published"), simulator.record() as lstm:
        nn.LSTM(4, 6).to(NPU)(packed)
    with torch.no_grad(), simulator.using("as-published"), simulator.record() as gru:
        nn.GRU(4, 6).to(NPU)(packed)
    assert lstm.by_operator()["aten::lstm.data"] == 1 and lstm.fallbacks == gru.fallbacks == 0
    assert gru.by_operator()["aten::_thnn_fused_gru_cell"] == 3


def test_a_profile_can_remove_them():
    profile = {"name": "no packing", "block": ["aten::_pack_padded_sequence", "aten::_thnn_fused_gru_cell"]}
    cell = nn.GRUCell(2, 3).to(NPU)
    with simulator.using(profile), torch.no_grad():
        with pytest.raises(NotImplementedError, match="_pack_padded_sequence"):
            pack_padded_sequence(torch.ones(3, 2, 4, device=NPU), torch.tensor([3, 1]))
        with pytest.raises(NotImplementedError, match="_thnn_fused_gru_cell"):
            cell(torch.ones(1, 2, device=NPU))
