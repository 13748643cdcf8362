"""What the simulation costs, against the same work on the CPU. One thread, CPU time, best of several.

The bounds are those that the simulator promises; they are ratios of two times on the same machine, not device
times.
"""

from __future__ import annotations

import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from model import DeepseekOCRForCausalLM
from tests.golden import CHECKPOINT, inputs
from tests.simulator.test_model import moved

NPU = torch.device("npu:0")


def best(run, times: int) -> float:
    seconds = []
    for _ in range(times + 1):  # the first warms up
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


@pytest.mark.slow
def test_our_model_costs_less_than_three_times():
    """A toy of 64 hidden channels: mostly dispatch, so close to the worst case."""
    given = inputs("g640")
    on_npu = {name: moved(value) for name, value in given.items()}
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)
    other = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, device=NPU)
    cpu = best(lambda: model.generate(**given, max_new_tokens=48), 7)
    npu = best(lambda: other.generate(**on_npu, max_new_tokens=48), 7)
    print(f"our model, golden checkpoint: cpu {cpu:.3f} s, simulated {npu:.3f} s, ratio {npu / cpu:.2f}")
    assert npu < 3 * cpu


@pytest.mark.slow
@pytest.mark.parametrize(("hidden", "layers", "bound"), [(64, 2, 3.0), (512, 6, 1.5)])
def test_decoding_with_transformers(hidden, layers, bound):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        vocab_size=8 * hidden,
        eos_token_id=None,
    )
    model, ids = LlamaForCausalLM(config).eval(), torch.randint(0, 8 * hidden, (1, 64))

    def run():
        given = ids.to(model.device)
        with torch.no_grad():
            model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=16, do_sample=False)

    cpu = best(run, 5)
    model.to(NPU)
    npu = best(run, 5)
    print(f"hidden {hidden}: cpu {cpu:.3f} s, simulated {npu:.3f} s, ratio {npu / cpu:.2f}")
    assert npu < bound * cpu
