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


def ratio(on_cpu, on_npu, times: int, what: str) -> float:
    """Best CPU time of the simulated device over the best of the CPU; in turns, because others share this
    machine."""
    seconds: dict = {on_cpu: [], on_npu: []}
    for _ in range(times + 1):  # the first warms up
        for run, taken in seconds.items():
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
    cpu, npu = (min(taken[1:]) for taken in seconds.values())
    print(f"{what}: cpu {cpu:.3f} s, simulated {npu:.3f} s, ratio {npu / cpu:.2f}")
    return npu / cpu


@pytest.mark.slow
def test_our_model_costs_less_than_three_times():
    """64 hidden channels: mostly dispatch."""
    given = inputs("g640")
    on_npu = {name: moved(value) for name, value in given.items()}
    model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)
    other = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, device=NPU)
    measured = ratio(
        lambda: model.generate(**given, max_new_tokens=48),
        lambda: other.generate(**on_npu, max_new_tokens=48),
        7,
        "our model, golden checkpoint",
    )
    assert measured < 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "layers", "bound"), [(64, 2, 4.0), (512, 6, 1.5)], ids=["nothing but dispatch", "512 wide"]
)
def test_decoding_with_transformers(hidden, layers, bound):
    def make() -> LlamaForCausalLM:
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
        return LlamaForCausalLM(config).eval()

    def decode(model):
        ids = torch.arange(64, device=model.device)[None]
        with torch.no_grad():
            model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)

    on_cpu, on_npu = make(), make().to(NPU)
    assert ratio(lambda: decode(on_cpu), lambda: decode(on_npu), 7, f"hidden {hidden}") < bound
