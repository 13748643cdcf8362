"""Launches per decoded token at the official sizes: counted dry, batch 1, the token picked on the device.

A launch is one operator that reaches the device, as the census counts.
The fused operators of torch_npu are counted under their own schemas, with the stand-in's shapes.
"""

from __future__ import annotations

import contextlib

import pytest
import torch

from deskocr_kit.census import census_ocr
from deskocr_kit.substitutes import npu
from model import DeepseekOCRConfig
from model.fast import DEFAULTS, references
from tests import npu_double

FUSED = {
    "rms_norm": "npu_rms_norm",
    "rotary": "npu_rotary_mul",
    "swiglu": "npu_swiglu",
    "moe": "npu_gathered_swiglu",
}


@contextlib.contextmanager
def fused():
    """torch_npu's operators as operators of torch, so that each call is seen as one."""
    library, calls = torch.library.Library("npu", "FRAGMENT"), {}
    for name in ("npu_rms_norm", "npu_rotary_mul", "npu_swiglu"):
        (line,) = (line for line in npu_double._LINES["2.13.0"][name])
        library.define(line.removeprefix("npu::"))
        library.impl(name, getattr(npu_double, name), "CompositeExplicitAutograd")
        calls[name] = getattr(torch.ops.npu, name)
    try:
        with npu_double.installed(**calls):
            yield {slot: npu.CANDIDATES[slot][name] for slot, name in FUSED.items()}
    finally:
        library._destroy()


@pytest.fixture(scope="module")
def counted() -> dict:
    """{who: census of a small page}: what costs a decoded token does not hang on the page."""
    made = {"references": census_ocr(plan=references(), mode="tiny"), "defaults": census_ocr(mode="tiny")}
    with fused() as plan:
        made["fused"] = census_ocr(plan=DEFAULTS | plan, mode="tiny")
    for who, census in made.items():
        print(
            f"\n{who}: {census.launches('decode')} launches, {census.syncs('decode')} syncs per token", end=""
        )
    return made


def test_the_expert_loop_is_gone(counted):
    """The loop costs some 70 launches and 8 waits in each MoE layer; what replaces it, 8 and none."""
    loop, ours = (counted[who].select("decode") for who in ("references", "defaults"))
    c = DeepseekOCRConfig().decoder
    layers = c.layers - c.dense_layers
    in_loop = sum(e.count for e in loop if e.call.site.endswith(" moe") and e.call.kind == "launch")
    in_ours = sum(e.count for e in ours if "fast/moe.py" in e.call.site and e.call.kind == "launch")
    assert in_ours <= 8 * layers and in_ours * 5 < in_loop
    assert counted["references"].syncs("decode") == layers * (2 + c.experts_per_token) + 1
    assert (
        counted["defaults"].syncs("decode") == counted["fused"].syncs("decode") == 1
    )  # the look at the token


def test_launches_per_token(counted):
    """Whole token: embedding to choice. The rest is norms (8 operators each), attention and router."""
    loop, ours, fused = (counted[who].launches("decode") for who in ("references", "defaults", "fused"))
    assert ours < loop / 2.2 and fused < loop / 3.7
