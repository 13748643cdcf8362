"""Predict the cost of a page on a device that is not available. A prediction, never a measurement.

    from deskocr_kit.prediction import predict
    predict("910B2")             # before and after the plan: lower bound, launch-bound estimate, TTFT, TPOT

chips.py: performance of chips (ranges with sources), and of this CPU, measured; work.py: the work of a page;
estimate.py: one divided by the other; roofline.py: the figure.
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
