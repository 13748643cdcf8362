"""Check the prediction on the one device that is always available: this CPU, in the same process."""

from __future__ import annotations

import time

import torch

from model import DeepseekOCRForCausalLM

from ..benchmark.limits import active_bytes
from ..operator_census.ocr_model import page_inputs
from .chips import measured_cpu
from .estimate import Prediction, predict
from .work import PLANS

TOKENS = 16
ROUNDS = 3


def cpu_check(
    model: DeepseekOCRForCausalLM, mode: str = "tiny", plan: str = "original"
) -> tuple[Prediction, dict[str, float]]:
    """(prediction for this CPU, measured {"ttft", "tpot"}), both in processor seconds of one thread.

    model: on the CPU, in fp32. Its page is blank.
    """
    cpu = measured_cpu("fp32", active_bytes(model))
    made = predict(cpu, model.config, mode, (1, 1), TOKENS, "fp32", "this checkpoint")
    inputs = page_inputs(model.config, mode, (1, 1))
    before, threads = dict(vars(model.slots)), torch.get_num_threads()
    model.use_plan(PLANS[plan][0]())
    torch.set_num_threads(1)
    try:
        first, all_of_it = (min(_spent(model, inputs, n) for _ in range(ROUNDS)) for n in (1, 1 + TOKENS))
    finally:
        torch.set_num_threads(threads)
        model.use_plan(before)
    return made, {"ttft": first, "tpot": (all_of_it - first) / TOKENS}


def _spent(model, inputs: dict, tokens: int) -> float:
    begin = time.process_time()
    model.generate(**inputs, max_new_tokens=tokens, eos_token_id=None)
    return time.process_time() - begin
