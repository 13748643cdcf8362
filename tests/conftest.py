"""Shared by all tests: one thread, so that results do not depend on the number of cores; the golden model."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch

from model import DeepseekOCRForCausalLM
from tests.helpers.golden import CHECKPOINT

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_model() -> DeepseekOCRForCausalLM:
    return DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)
