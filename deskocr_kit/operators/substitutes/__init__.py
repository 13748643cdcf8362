"""Implementations that may take a slot's place: plain functions of tensors, by name.

    from deskocr_kit.operators.substitutes import candidates
    candidates("conv2d")        # {"reference": …, "unfold_einsum": …, "patchify": …, …}
    model.use_plan({"conv2d": candidates("conv2d")["patchify"]})

One small file per slot; those that the network runs by default lie in model/fast/. "reference" is the plain
implementation in model/slots.py. Names that begin with "npu_" are operators of torch_npu; they need an NPU,
and check themselves on their first use. Every other one runs everywhere and takes every input that its
reference takes.
"""

from .cases import ANY, ByCase, case_of
from .mismatch import Mismatch
from .registry import SLOTS, candidate, candidates, default

__all__ = ["ANY", "SLOTS", "ByCase", "Mismatch", "candidate", "candidates", "case_of", "default"]
