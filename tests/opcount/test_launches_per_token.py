"""Launches per decoded token at the official sizes: a dry run, batch 1, token chosen on the device.

A launch is one operator that gives the device work, see opcount/definition.py. The baseline is the loop over
experts in the original, see baselines/original.py. The fused operators of torch_npu are counted under their
own schemas, with the shapes of the replacement (helpers/npu_double.py).
"""

from __future__ import annotations

import contextlib
import re

import pytest
import torch

from deskocr_kit.opcount.recorder import Recorder
from deskocr_kit.operator_census.ocr_model import census_ocr
from deskocr_kit.operators.substitutes import npu
from deskocr_kit.prediction.original_loop import census_original
from deskocr_kit.prediction.work import work_of
from model import DeepseekOCRConfig
from model.fast import DEFAULTS, references
from model.ngram import DeviceGuard
from tests.helpers import npu_double
from tests.helpers.paths import ROOT

# Rotation stays a product, which keeps keys and values adjacent; npu_rotary_mul would need one more copy.
FUSED = {"rms_norm": "npu_rms_norm", "swiglu": "npu_swiglu", "moe": "npu_gathered_swiglu"}


@contextlib.contextmanager
def fused():
    """The operators of torch_npu as operators of torch, so that each call counts as one."""
    library, calls = torch.library.Library("npu", "FRAGMENT"), {}
    for name in ("npu_rms_norm", "npu_swiglu"):
        (line,) = (line for line in npu_double._LINES["2.13.0"][name])
        library.define(line.removeprefix("npu::"))
        library.impl(name, npu_double.OPERATORS[name], "CompositeExplicitAutograd")
        calls[name] = getattr(torch.ops.npu, name)
    try:
        with npu_double.installed(**calls):
            yield {slot: npu.CANDIDATES[slot][name] for slot, name in FUSED.items()}
    finally:
        library._destroy()


@pytest.fixture(scope="module")
def counted() -> dict:
    """{name: census of a small page}: the work of a decoded token does not depend on the page."""
    made = {"original": census_original(), "defaults": census_ocr(mode="tiny")}
    made["references"] = census_ocr(plan=references(), mode="tiny")
    with fused() as plan:
        made["fused"] = census_ocr(plan=DEFAULTS | plan, mode="tiny")
    for who, census in made.items():
        print(
            f"\n{who}: {census.launches('decode')} launches, {census.syncs('decode')} syncs per token", end=""
        )
    return made


def test_a_fifth_of_the_originals_launches(counted):
    """Whole token, from embedding to choice, with portable operators; fewer with the fused ones."""
    original, ours, fused = (counted[who].launches("decode") for who in ("original", "defaults", "fused"))
    assert 5 * ours <= original
    assert fused < ours


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_states_these_numbers(counted, name):
    """Launches of the original, of the defaults and of the fused plan, and the waits of the original."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    row = next(i for i, line in enumerate(lines) if "portable_plan" in line)
    launches, waits = (re.findall(r"\d+", line.split("|")[2]) for line in lines[row : row + 2])
    assert int(waits[0]) == counted["original"].syncs("decode")
    assert [int(number) for number in launches[:3]] == [
        counted[who].launches("decode") for who in ("original", "defaults", "fused")
    ]


def test_the_plans_of_prediction_cost_the_same(counted):
    """For a decoded token `portable_plan` equals the defaults; `fused_plan` has the fused operators."""
    works = {work.plan: work.phases["decode"] for work in work_of(mode="tiny")}
    for plan, who in (("original", "original"), ("portable", "defaults"), ("fused", "fused")):
        assert (works[plan].launches, works[plan].syncs) == (
            counted[who].launches("decode"),
            counted[who].syncs("decode"),
        )


def test_waits(counted):
    """Ours: one check per token. `generate` checks every 16 tokens without a listener; this count has one."""
    c = DeepseekOCRConfig().decoder
    layers = c.layers - c.dense_layers
    assert counted["original"].syncs("decode") == layers + 3
    assert counted["references"].syncs("decode") == layers * (2 + c.experts_per_token) + 1
    assert counted["defaults"].syncs("decode") == counted["fused"].syncs("decode") == 1


def test_the_expert_loop_is_gone(counted):
    """Seven operators for the chosen and shared experts of a layer; the loop launches five per chosen one."""
    c = DeepseekOCRConfig().decoder
    layers = c.layers - c.dense_layers
    loop, mixing = (
        sum(
            e.count for e in counted[who].select("decode") if e.call.kind == "launch" and where in e.call.site
        )
        for who, where in (("original", "swiglu_mlp"), ("defaults", "fast/moe.py"))
    )
    assert loop == 5 * (layers * (c.experts_per_token + 1) + c.dense_layers)
    assert mixing == 5 * layers  # and two for swiglu


def test_the_guard_costs_seven_operators_whatever_its_window():
    """The guard runs on the device; that of the original reads the whole sequence back to the host."""
    ids = torch.zeros(1, 64, dtype=torch.long, device="meta")
    guard, logits = DeviceGuard(ids, 40, 20, 50, (), 100), torch.zeros(1, 100, device="meta")
    recorder = Recorder()
    with recorder:
        guard.apply(logits)
        guard.append()
    assert sum(n for call, n in recorder.counts.items() if call.kind == "launch") == 7
    assert not any(call.waits or call.kind == "h2d" for call in recorder.counts)


def test_nothing_goes_up(counted):
    for census in (counted["defaults"], counted["fused"]):
        assert not [e for e in census.select("decode") if e.call.kind == "h2d"]
