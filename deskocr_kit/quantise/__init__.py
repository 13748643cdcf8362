"""Weights in 8 or 4 bits, activations as they are (W8A16, W4A16): less to read per decoded token.

    from deskocr_kit.quantise import quantise
    errors = quantise(model, bits=8)        # in place, layer by layer; [LayerError, …], worst first

Why not torchao: its quantised linears replace nn.Linear, and most weights here are stacked experts
(e, out, in), which are plain parameters; so the little arithmetic that is needed is here (pack.py).
"""

from __future__ import annotations

from .apply import LayerError, quantise, weight_bytes

__all__ = ["LayerError", "quantise", "weight_bytes"]
