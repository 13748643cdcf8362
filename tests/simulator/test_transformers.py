"""transformers on the simulated device: every form of generate() gives the CPU's tokens; loading, saving."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from transformers import LlamaForCausalLM

from deskocr_kit import simulator
from tests.helpers.llama import generate, make
from tests.helpers.simulated import NPU

WAYS = {
    "greedy": {"do_sample": False},
    "no_repeat": {"do_sample": False, "no_repeat_ngram_size": 2},
    "beams": {"do_sample": False, "num_beams": 2},
    "sampling": {"do_sample": True, "top_k": 5, "top_p": 0.9, "temperature": 0.7},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("profile", ["all", "as-published"])
def test_generate_gives_the_cpus_tokens(options, profile):
    model = make()
    expected = generate(model, **options)
    with simulator.using(profile):
        assert torch.equal(generate(model.to(NPU), **options), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_generate_in_half_precision(dtype):
    ids = generate(make(dtype).to(NPU), do_sample=False)
    assert ids.shape == (2, 19)


def test_save_and_load(tmp_path):
    model = make().to(NPU)
    expected = generate(model, do_sample=False)
    model.save_pretrained(tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path).eval().to("npu:0")
    assert loaded.device == NPU and torch.equal(generate(loaded, do_sample=False), expected)


def test_syncs_of_generate_are_found():
    """generate() reads from the device at every token whether to stop; the recording names the line."""
    model = make().to(NPU)
    with simulator.record() as r:
        generate(model, do_sample=False)
    assert r.syncs >= 10 and any("transformers" in where for where in r.by_site("sync"))


def test_with_a_stand_in_for_torch_npu():
    """With code that imports torch_npu itself, transformers treats the device as a real one, and works."""
    code = """
import torch
from deskocr_kit import simulator
simulator.install("as-published", torch_npu_stub=True)
import torch_npu
from transformers.utils import is_torch_npu_available
assert torch_npu.simulated and torch_npu.npu is torch.npu and is_torch_npu_available()
x = torch.randn(2, 8, device="npu")
y, scale = torch_npu.npu_rms_norm(x, torch.ones(8, device="npu"))
torch.testing.assert_close(y, torch.nn.functional.rms_norm(x, (8,), eps=1e-6))
from tests.helpers.llama import generate, make
from tests.helpers.simulated import NPU
model = make()
expected = generate(model, do_sample=False)
assert torch.equal(generate(model.to(NPU), do_sample=False), expected)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("done"), done.stderr
