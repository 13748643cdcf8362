"""Helpers of the tests of the simulated NPU."""

from __future__ import annotations

import torch

NPU = torch.device("npu:0")


def moved(value):
    if isinstance(value, torch.Tensor):
        return value.to(NPU)
    return type(value)(moved(x) for x in value) if isinstance(value, (list, tuple)) else value
