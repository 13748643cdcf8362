"""Implementations that can be used in a slot: plain functions of tensors, by name.

    from deskocr_kit.operators.substitutes import candidates
    candidates("conv2d")        # {"reference": …, "unfold_einsum": …, "patchify": …, …}
    model.use_plan({"conv2d": candidates("conv2d")["patchify"]})

There is one small file per slot; the implementations that the network runs by default are in model/fast/.
"reference" is the plain implementation in model/slots.py. Names that begin with "npu_" are operators of
torch_npu; they need an NPU, and check themselves on their first use. Every other implementation runs
everywhere and accepts every input that its reference accepts.
"""

from .cases import ANY, ByCase, case_of
from .mismatch import Mismatch
from .registry import SLOTS, candidate, candidates, default

__all__ = ["ANY", "SLOTS", "ByCase", "Mismatch", "candidate", "candidates", "case_of", "default"]
