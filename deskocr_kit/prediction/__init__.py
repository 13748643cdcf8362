"""A model of a device, to say before anyone has one what a page can cost there. A prediction, never a result.

    from deskocr_kit.prediction import predict
    predict("910B2")             # before and after the plan: lower bound, launch-bound estimate, TTFT, TPOT

chips.py what a chip can do (ranges with sources) and the CPU at hand, measured; work.py what a page asks for;
estimate.py one divided by the other; picture.py draws it.
"""

from __future__ import annotations

from .chips import Chip, Quantity, find, measured_cpu, names
from .estimate import Prediction, Range, Times, predict, times
from .work import PLANS, Phase, Work, work_of

__all__ = [
    "PLANS",
    "Chip",
    "Phase",
    "Prediction",
    "Quantity",
    "Range",
    "Times",
    "Work",
    "find",
    "measured_cpu",
    "names",
    "predict",
    "times",
    "work_of",
]
