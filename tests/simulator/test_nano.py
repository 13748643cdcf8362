"""The embedded checkpoint reads the same on the simulated NPU as on the CPU, if the profile allows it."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.text_distance import cer
from deskocr_kit.synthetic_pages import sample_pages


@pytest.fixture(scope="module")
def readers():
    return Reader.load("nano", "cpu", "fp32"), Reader.load("nano", torch.device("npu:0"), "fp32")


@pytest.mark.parametrize("profile", ["all", "as-published", "as-published-2.6.0"])
def test_same_tokens_as_on_the_cpu(readers, profile):
    cpu, npu = readers
    page = sample_pages.draw("5_notes").image
    with simulator.using(profile):
        assert npu.read(page, "free").ids == cpu.read(page, "free").ids


def test_as_believed_names_what_is_missing_and_where(readers):
    page = sample_pages.draw("5_notes").image
    with simulator.using("as-believed"), pytest.raises(Exception, match="(?i)conv") as caught:
        readers[1].read(page, "free", max_new_tokens=1)
    assert "slots.py" in str(caught.value) or "slots.py" in str(caught.getrepr())
    with simulator.using("as-believed", survey=True), simulator.record() as seen:
        readers[1].read(page, "free", max_new_tokens=1)
    assert set(seen.by_operator("refused")) == {"aten::convolution", "aten::masked_scatter_"}


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_reads_as_fp32_on_the_cpu(readers, dtype):
    """The first forty tokens. fp16 (11 bits) may flip a near tie, bf16 (8 bits) a few."""
    page, room = sample_pages.draw("5_notes").image, {"fp16": 0.02, "bf16": 0.15}[dtype]
    half = Reader.load("nano", torch.device("npu:0"), dtype)
    with simulator.using("as-published"):
        read = half.read(page, "free", max_new_tokens=40).text
    assert cer(read, readers[0].read(page, "free", max_new_tokens=40).text) <= room
