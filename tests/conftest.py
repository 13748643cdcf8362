"""Shared by all tests: one thread, so that results do not depend on the number of cores; the golden model."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from model import DeepseekOCRForCausalLM
from tests.helpers.golden import CHECKPOINT

torch.set_num_threads(1)

# Generated input is the same in every run, so that a red test is a change of the code; `make fuzz` draws new
# input and stores what it finds. No example has a time limit of its own: a shared machine is slow at times.
_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}
settings.register_profile("default", derandomize=True, max_examples=60, database=None, **_QUIET)
settings.register_profile(  # what it does not set is that of the profile named "default"
    "fuzz", derandomize=False, max_examples=5000, print_blob=True,
    database=DirectoryBasedExampleDatabase(Path(__file__).parents[1] / ".hypothesis"), **_QUIET,
)  # fmt: skip
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def golden_model() -> DeepseekOCRForCausalLM:
    return DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)
