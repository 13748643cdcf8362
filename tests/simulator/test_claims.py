"""Claims that an NPU lacks an operator, tested with a setting that reports an NPU: the simulated one."""

from __future__ import annotations

import dataclasses
import warnings

import pytest
import torch

from deskocr_kit import simulator
from deskocr_kit.claims import checks, reading_checks
from deskocr_kit.claims.claim import FAILS, HOLDS, claims
from deskocr_kit.claims.ledger import run
from deskocr_kit.reading.reader import Reader

TRIED = {"aten::convolution": "conv2d-missing", "aten::masked_scatter_": "masked-scatter-missing"}


def outcome(operator: str, how: str | None):
    blocked = {operator: how} if how else {}
    with simulator.using({"name": "stand-in", "block": blocked}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = dataclasses.replace(checks.Setting.on("npu-sim", None), npu=True)
        simulator.use({"name": "stand-in", "block": blocked})  # the setting chose its own profile
        return checks.CHECKS[TRIED[operator]]({}, here)


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


def test_what_only_a_device_can_decide_really_runs(monkeypatch):
    """The checks of these claims with a replaced setting that may decide: nano, one page, four tokens."""
    reader = Reader.load("nano", torch.device("npu:0"), "fp16")
    reader.settings["max_new_tokens"] = 4
    page = reading_checks._pages()[0]
    monkeypatch.setattr(reading_checks.Setting, "decides", property(lambda self: True))
    monkeypatch.setattr(reading_checks, "_reader", lambda here: reader)
    monkeypatch.setattr(reading_checks, "_pages", lambda: [page])
    monkeypatch.setattr(reading_checks, "REPEATS", 1)
    monkeypatch.setattr(reading_checks, "describe_device", lambda device: {"cann": "8.5.0"})
    here = reading_checks.Setting(torch.device("npu:0"), "a stand-in", True, "nano")
    facts = {claim.id: claim.facts for claim in claims()}
    for name in ("fallback-cost", "cann-8.4", "load-time", "speed", "success"):
        found = checks.CHECKS[name](facts[name], here)
        assert found.word in (HOLDS, FAILS) and found.device == "a stand-in", (name, found)
