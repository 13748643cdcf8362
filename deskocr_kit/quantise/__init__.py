"""Weights in 8 or 4 bits, activations as they are (W8A16, W4A16): less to read per decoded token.

    from deskocr_kit.quantise import quantise
    errors = quantise(model, bits=8)        # in place, layer by layer; [LayerError, …], worst first

Why not torchao: its quantised linears replace nn.Linear, and 87 % of the decoder's weights are stacked
experts (e, out, in), which are plain parameters; so the little arithmetic that is needed is here (pack.py).
torchao 0.18.0 was tried beside torch 2.13 (installed without its dependencies). Int8WeightOnlyConfig on a
linear of 3840 x 1280 makes the same error (4.6e-3 of the result in bf16, here 4.4e-3). One bf16 row on one
thread of a Zen 5 CPU takes it 1.1 ms, the kernel in product.py 0.27 ms, plain weights 0.42 ms.
"""

from __future__ import annotations

from .apply import LayerError, quantise, weight_bytes

__all__ = ["LayerError", "quantise", "weight_bytes"]
