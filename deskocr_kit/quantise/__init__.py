"""Weights in 8 or 4 bits with unchanged activations (W8A16, W4A16): fewer bytes per decoded token.

    from deskocr_kit.quantise import quantise
    errors = quantise(model, bits=8)        # in place, layer by layer; [LayerError, …], worst first

Why not torchao: its quantised layers replace nn.Linear, but 87 % of the decoder's weights are stacked experts
(e, out, in), which are plain parameters. The little arithmetic that is needed is in pack.py. torchao 0.18.0
was tried with torch 2.13 (installed without its dependencies). Int8WeightOnlyConfig has the same error on a
linear layer of 3840 x 1280 (4.6e-3 of the result in bf16, here 4.4e-3). One bf16 row on one thread of a Zen 5
CPU takes 1.1 ms with torchao, 0.27 ms with the kernel in product.py, 0.42 ms with plain weights.
"""

from __future__ import annotations

from .apply import LayerError, quantise, weight_bytes

__all__ = ["LayerError", "quantise", "weight_bytes"]
