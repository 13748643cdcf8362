"""«The NPU lacks this», tried on a device: a stand-in setting says NPU, the device is the simulated one."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from deskocr_kit import claims_checks, simulator
from deskocr_kit.claims import FAILS, HOLDS, run

TRIED = {"aten::convolution": "conv2d-missing", "aten::masked_scatter_": "masked-scatter-missing"}


def outcome(operator: str, how: str | None):
    blocked = {operator: how} if how else {}
    with simulator.using({"name": "stand-in", "block": blocked}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = dataclasses.replace(claims_checks.Setting.on("npu-sim", None), npu=True)
        simulator.use({"name": "stand-in", "block": blocked})  # the setting chose a profile of its own
        return claims_checks.CHECKS[TRIED[operator]]({}, here)


@pytest.mark.parametrize("operator", TRIED)
def test_the_operator_itself_is_tried(operator):
    there = outcome(operator, None)
    assert there.word == FAILS and "runs on the device in fp16" in there.evidence
    absent = outcome(operator, "not-implemented")
    assert absent.word == HOLDS and "Error" in absent.evidence
    on_the_host = outcome(operator, "cpu-fallback")
    assert on_the_host.word == HOLDS and "host CPU" in on_the_host.evidence


def test_a_simulated_device_decides_nothing_about_npus():
    ledger = run(["conv2d-missing", "conv2d-substitute", "speed"], "npu-sim")
    missing, substitute, speed = (row.outcome for row in ledger)
    assert "as published" in missing.evidence and missing.device.startswith("no device")
    assert "simulated" in substitute.device and speed.word == "needs a device"
