"""Kernels of recurrent layers: packed sequences, and the fused cells, which the CPU does not have.

PyTorch wants the lengths of packed sequences on the host, where they steer a loop, and returns them there.
For a device other than the CPU it also computes a GRU or LSTM cell by a fused operator; the formulas are
those of its own CUDA kernels (ATen/native/cuda/RNN.cu). A packed GRU has no kernel in the wheels: PyTorch
runs it cell by cell.
"""

from __future__ import annotations

import torch

from . import kernels

Tensor = torch.Tensor
_PACK, _UNPACK = "aten::_pack_padded_sequence", "aten::_pad_packed_sequence"
_GRU, _LSTM = "aten::_thnn_fused_gru_cell", "aten::_thnn_fused_lstm_cell"


def gru_cell(input_gates, hidden_gates, hx, input_bias=None, hidden_bias=None):
    """(next state (b, d), workspace (b, 5 d)) from the gates (b, 3 d): reset, update, new."""
    given, kept = _with_bias(input_gates, input_bias), _with_bias(hidden_gates, hidden_bias)
    (reset, update, new), (h_reset, h_update, h_new) = given.chunk(3, -1), kept.chunk(3, -1)
    reset, update = (reset + h_reset).sigmoid(), (update + h_update).sigmoid()
    new = (new + reset * h_new).tanh()
    return new + update * (hx - new), torch.cat((reset, update, new, hx, h_new), -1)


def lstm_cell(input_gates, hidden_gates, cx, input_bias=None, hidden_bias=None):
    """(next state (b, d), next cell (b, d), workspace (b, 4 d)) from the gates (b, 4 d)."""
    gates = _with_bias(input_gates, input_bias) + _with_bias(hidden_gates, hidden_bias)
    into, forget, new, out = gates.chunk(4, -1)
    into, forget, new, out = into.sigmoid(), forget.sigmoid(), new.tanh(), out.sigmoid()
    cell = forget * cx + into * new
    return out * cell.tanh(), cell, torch.cat((into, forget, new, out), -1)


def _with_bias(gates: Tensor, bias: Tensor | None) -> Tensor:
    return gates if bias is None else gates + bias


#: Operators without a kernel of the CPU.
FUSED = {_GRU: gru_cell, _LSTM: lstm_cell}


def body_of(name: str):
    """The kernel of a recurrent operator, or None for any other operator."""
    if name in FUSED:
        return kernels.make(name, call=FUSED[name])
    if name == "aten::lstm.data":
        return _with_lengths(name, kernels.make(name, host=(1,)))
    if name in (_PACK, _UNPACK):
        return _with_lengths(name, kernels.make(name, host=(1,), stays=(1,)))
    return None


def _with_lengths(name: str, body):
    """`body`, which refuses lengths on the device, as PyTorch does."""

    def checked(*args, **kwargs):
        if len(args) > 1 and not args[1].is_cpu:
            what = "lengths" if name == _PACK else "batch_sizes"
            raise RuntimeError(
                f"'{what}' argument should be a 1D CPU int64 tensor, but got {args[1].dim()}D "
                f"{args[1].device} {str(args[1].dtype).removeprefix('torch.')} tensor"
            )
        return body(*args, **kwargs)

    return checked
