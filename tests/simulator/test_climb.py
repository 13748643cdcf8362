"""climb with a candidate on the device and its reference on the CPU, on models that are not ours."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn as nn

from deskocr_kit import headroom
from deskocr_kit.compare import climb
from deskocr_kit.course import example_llava as tiny_llava
from tests.helpers.climb_battery import PAIRWISE, Setting, sound_port, trial
from tests.helpers.climb_guests import GUESTS

NPU = torch.device("npu:0")
SOUND = "none: a sound port"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

#: Those whose fault is found by comparing operators of two devices, and sound ports with masks.
TRIALS = [
    ("qwen2", SOUND, Setting("fp16", "eager", True)),
    ("qwen2", SOUND, Setting("bf16", "eager", True)),
    ("qwen2", "rounded buffer", Setting("fp16", "sdpa", False)),
    ("llava", "upside down", Setting("fp16", "eager", False)),
    ("whisper", "dropped residual", Setting("fp16", "sdpa", False)),
    ("florence2", "scaled module", Setting("fp16", "eager", True)),
    ("crnn", "scaled module", Setting("fp16", "eager", False)),
]


@pytest.mark.parametrize(("guest", "fault", "setting"), TRIALS, ids=[f"{g}-{f}" for g, f, _ in TRIALS])
def test_a_fault_on_the_device_is_named(guest, fault, setting):
    outcome = trial(GUESTS[guest], fault, setting, str(NPU))
    assert outcome.named == "right", outcome


@pytest.mark.slow  # 60 comparisons
@pytest.mark.parametrize("guest", GUESTS)
def test_every_sound_port_on_the_device_is_right(guest):
    for row in PAIRWISE:
        outcome = trial(GUESTS[guest], SOUND, Setting(*row), str(NPU))
        assert outcome.named == "right", outcome


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_documented_call_moves_the_inputs(dtype):
    model, given = tiny_llava.build_llava(), tiny_llava.llava_inputs()
    ported = sound_port(model, dtype, str(NPU))
    ladder = climb(model, ported, given)
    assert ladder.ok and not ladder.raised, ladder


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_fault_between_blocks_is_named_and_not_the_copy_of_the_inputs(dtype):
    model, given = tiny_llava.build_llava(), tiny_llava.llava_inputs()
    ported = sound_port(model, dtype, str(NPU))
    if not hasattr(ported, "model"):
        pytest.skip("in this transformers Llava has no part that gives features to its decoder")
    features = ported.model.get_image_features

    def upside_down(*args, **kwargs):
        found = features(*args, **kwargs)
        found.pooler_output = [each.flip(0) for each in found.pooler_output]
        return found

    ported.model.get_image_features = upside_down
    first = climb(model, ported, given).first
    assert (first.rung, first.operator) == ("between blocks", "aten::flip"), first
    assert "only the candidate has aten::flip" in first.what, first


def test_a_linear_without_bias_has_one_name_on_both_devices():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU()).eval()
    ported = copy.deepcopy(model).to(NPU, torch.float16)
    ported[0].register_forward_hook(lambda module, args, y: y * 1.1)
    first = climb(model, ported, torch.randn(2, 3, 8)).first
    assert first.operator == "aten::mul" and "only the candidate has aten::mul(1.1)" in first.what, first


def test_headroom_of_eager_attention_on_the_device():
    guest = GUESTS["qwen2"]
    model, given = guest.build("eager").to(NPU), {k: v.to(NPU) for k, v in guest.given(True).items()}
    assert headroom(model, lambda: model(**given)).needs_fp32() == []
