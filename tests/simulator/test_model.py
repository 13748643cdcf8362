"""Our model end to end on the simulated device: the tokens of the CPU, or the missing operator."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.device import default_dtype, pick_device
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from tests.helpers.golden import CHECKPOINT, inputs, tensors
from tests.helpers.simulated import NPU, moved


def tokens(model, case: str, count: int = 24) -> torch.Tensor:
    given = {name: moved(value) for name, value in inputs(case).items()}
    ids = model.generate(**given, max_new_tokens=count, eos_token_id=None)
    return ids[:, given["input_ids"].shape[1] :].cpu()


@pytest.fixture(scope="module")
def on_npu() -> DeepseekOCRForCausalLM:
    return DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, device="npu:0")


@pytest.mark.parametrize("profile", ["all", "as-published", "as-published-2.6.0"])
@pytest.mark.parametrize("case", ["g640", "crop2x1", "text"])
def test_same_tokens_as_the_original(on_npu, case, profile):
    with simulator.using(profile):
        assert torch.equal(tokens(on_npu, case), tensors(case)["gen24_noeos"])


def test_as_believed_says_what_is_missing(on_npu):
    said = pytest.raises(NotImplementedError, match=r"aten::convolution.*as-believed; .*model.*\.py:\d+")
    with simulator.using("as-believed"), simulator.record() as r, said:
        tokens(on_npu, "g640")
    (where,) = r.by_site("refused")
    assert r.by_operator("refused") == {"aten::convolution": 1} and "/model/" in where


def test_a_survey_lists_everything_that_is_missing(on_npu):
    with simulator.using("as-believed", survey=True), simulator.record() as r:
        assert torch.equal(tokens(on_npu, "g640"), tensors("g640")["gen24_noeos"])
    # Convolutions of one page: the patches of SAM (none in CLIP), two of the neck, two that halve; then the
    # merge.
    assert r.by_operator("refused") == {"aten::convolution": 5, "aten::masked_scatter_": 1}
    assert len(r.by_site("refused")) == 2


def test_as_believed_with_the_cpu_in_place_of_errors(on_npu):
    """The same operators missing with a CPU fallback: the right tokens, and the cost counted."""
    missing = dict.fromkeys(("aten::convolution", "aten::masked_scatter_"), "cpu-fallback")
    with simulator.using({"name": "slow", "block": missing}), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with simulator.record() as r:
            assert torch.equal(tokens(on_npu, "g640"), tensors("g640")["gen24_noeos"])
    assert r.fallbacks >= 5 and r.by_operator("fallback")["aten::convolution"] >= 5
    assert len([w for w in caught if "will fall back to run on the CPU" in str(w.message)]) in (1, 2)


def test_loading_holds_the_model_and_little_more():
    gc.collect()  # models of earlier tests, kept by reference cycles, would count in this peak
    with simulator.record() as r:
        model = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, torch.float16, "npu:0")
    parameters = list(model.parameters())
    held = sum(p.nbytes for p in parameters)
    largest = max(p.nbytes for p in parameters)
    assert {p.device for p in parameters} == {NPU} and {p.dtype for p in parameters} == {torch.float16}
    assert r.peak_bytes <= torch.npu.memory_allocated() + 2 * largest and r.d2h_copies == 0
    assert torch.npu.memory_allocated() >= held


def test_fp16_stays_close_to_fp32(on_npu):
    device = pick_device("npu-sim:as-published", quiet=True)
    half = DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT, default_dtype(device), device)
    assert half.dtype is torch.float16
    given = {name: moved(value) for name, value in inputs("g640").items()}
    with torch.no_grad():
        exact, rounded = on_npu(**given).logits.float(), half(**given).logits.float()
    # Compared per token, because rounding may route a token of this random network to another expert.
    error = (exact - rounded).abs().amax(-1) / exact.abs().max()
    assert (error < 0.01).float().mean().item() > 0.95


def test_the_official_size_under_fake_tensors_takes_no_memory():
    from torch._subclasses.fake_tensor import FakeTensorMode

    before = torch.npu.memory_allocated()
    try:
        torch.set_default_dtype(torch.float16)
        with FakeTensorMode(), torch.device("npu:0"), torch.no_grad():
            model = DeepseekOCRForCausalLM(DeepseekOCRConfig())
            sam_map = model.model.sam_model(torch.empty(1, 3, 1024, 1024))
            seen = model.model.vision_model(sam_map)
    finally:
        torch.set_default_dtype(torch.float32)
    assert sam_map.shape == (1, 1024, 16, 16) and seen.shape == (1, 257, 1024)
    assert seen.dtype is torch.float16 and seen.device == NPU
    assert sum(p.numel() for p in model.parameters()) > 3e9 and torch.npu.memory_allocated() <= before
