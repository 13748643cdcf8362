"""A profile of the simulated NPU: the counts of its own record, marked as simulated."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from deskocr_kit.traces import read_trace
from deskocr_kit.traces.profile import profile_page
from model.images import load_image


@pytest.mark.parametrize("profile", ["as-published", "as-believed"])
def test_a_profile_has_the_counts_of_the_simulators_record(tmp_path, profile):
    with simulator.using(profile, survey=True):  # what a profile refuses runs, and is counted
        reader = Reader.load("nano", torch.device("npu:0"), "fp16")
        found = profile_page(reader, load_image(sample_pages()[0][0]), tmp_path, tokens=3)
    record = read_trace(tmp_path / "simulator_record.json")
    assert found.simulated and record.simulated and found.count == record.count > 500
    assert {row.type: row.count for row in found.by_type()} == {
        row.type: row.count for row in record.by_type()
    }
    assert record.device_us is None and "SIMULATED" in repr(found)
    statistic = read_trace(tmp_path / "ASCEND_PROFILER_OUTPUT" / "op_statistic.csv")
    assert statistic.count == found.count
    assert "/" not in "".join(path.name for path in tmp_path.rglob("*"))
    text = (tmp_path / "simulator_record.json").read_text()
    assert str(tmp_path) not in text and "/home/" not in text and "/root/" not in text
