"""A trace tied to the slots: which substitute removes which row. And what a trace says about a chip."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
import torch

from deskocr_kit.operator_census.ocr_model import census_ocr
from deskocr_kit.prediction.chips import find
from deskocr_kit.prediction.measured import find_measured, store
from deskocr_kit.traces import Kernel, Trace, TraceError, read_trace
from deskocr_kit.traces.calibration import calibration, quantile
from deskocr_kit.traces.families import family_of_operator, family_of_type
from deskocr_kit.traces.slot_work import network_work
from deskocr_kit.traces.substitutes import removals
from model import DeepseekOCRConfig
from model.fast import references
from tests.helpers.paths import DATA, NANO

TRACES = DATA / "traces"


@pytest.fixture(scope="module")
def config():
    return DeepseekOCRConfig.from_pretrained(NANO)


@pytest.fixture(scope="module")
def work(config):
    return network_work(config, "tiny", (1, 1))


def trace_of(*rows) -> Trace:
    """rows: (type, core, microseconds)."""
    kernels = [
        Kernel(kind, kind, Decimal(us), core, Decimal(100 * i)) for i, (kind, core, us) in enumerate(rows)
    ]
    return Trace("kernel_details", "made up", kernels)


def test_the_slots_and_the_rest_are_the_census(config, work):
    census = census_ocr(config, "tiny", (1, 1), plan=references())
    assert sum(work.of({}).values()) == sum(
        census.launches(phase) for phase in ("vision", "prefill", "decode")
    )


def test_more_tokens_are_more_launches_of_the_decoder_only(config, work):
    more = network_work(config, "tiny", (1, 1), tokens=3)  # two more than `work`
    per_token = census_ocr(config, "tiny", (1, 1), plan=references()).launches("decode")
    assert sum(more.of({}).values()) - sum(work.of({}).values()) == 2 * per_token
    assert more.slots["conv2d"] == work.slots["conv2d"]


def test_every_candidate_is_counted(work):
    unknown = [(slot, name) for slot, found in work.slots.items() for name, n in found.items() if n is None]
    assert unknown == ([] if hasattr(torch, "_grouped_mm") else [("moe", "grouped_mm")])  # torch 2.8 has it


def test_masked_scatter_on_the_ai_cpu_is_removed_by_place_images(work):
    found = removals(trace_of(("MaskedScatter", "AI_CPU", 5000), ("MatMulV2", "AI_CORE", 30)), work)
    best = found[0]
    assert (best.slot, best.removes["MaskedScatter"]) == ("place_images", (1.0, Decimal(5000), 1.0))
    assert best.substitute in ("index_copy", "cumsum_where") and best.saves_us == 5000
    assert not any(each.substitute == "cpu_fallback" for each in found)
    assert "place_images" in repr(found) and "estimate" in repr(found)


def test_a_convolution_is_replaced_by_a_product_whose_price_is_known(work):
    rows = [("Conv2D", "AI_CORE", 2000)] * 5 + [("MatMulV2", "AI_CORE", 10)] * 20
    best = next(each for each in removals(trace_of(*rows), work) if each.slot == "conv2d")
    assert best.removes["Conv2D"][2] == 1.0 and 0 < best.added_us < 10_000
    assert best.saves_us == 10_000 - best.added_us


def test_what_a_substitute_adds_without_a_row_in_the_trace_has_no_price(work):
    found = removals(trace_of(("Conv2D", "AI_CORE", 2000)), work)
    assert found[0].added_us == 0 and "matrix product" in found[0].unknown


def test_a_slot_that_already_runs_a_substitute_is_compared_with_it(work):
    rows = trace_of(("MaskedScatter", "AI_CPU", 5000))
    assert all(each.slot != "place_images" for each in removals(rows, work, {"place_images": "index_copy"}))


def test_a_table_resized_once_costs_a_page_nothing(work):
    found = removals(trace_of(("ResizeBicubic", "AI_CPU", 700)), work)
    names = {each.substitute for each in found if each.removes}
    assert "cached_grid" in names or "cached_relative_table" in names


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("MatMulV2", "matrix product"), ("BatchMatMulV3", "matrix product"), ("Conv2D", "convolution"),
        ("aten::addmm", "matrix product"), ("ArgSort", "sort"), ("RmsNorm", "rms norm"), ("Whatever", None),
    ],
)  # fmt: skip
def test_families_of_kernels(kind, family):
    assert family_of_type(kind) == family


def test_families_of_operators():
    assert family_of_operator("aten::masked_scatter_") == "masked_scatter"
    assert family_of_operator("aten::add_.Tensor") == "add"
    assert family_of_operator("aten::new_operator") == "new_operator"


def test_no_type_or_operator_is_in_two_families():
    stored = json.loads((DATA.parents[1] / "deskocr_kit/ascend/data/kernel_families.json").read_text())[
        "families"
    ]
    for key in ("operators", "types"):
        names = [name for family in stored.values() for name in family[key]]
        assert len(names) == len(set(names))


# ---------------------------------------------------------------------- calibration
def test_a_chip_is_calibrated_from_gaps_and_shapes(tmp_path):
    found = calibration(read_trace(TRACES / "level1"), "910B2")
    assert (found["launch_us"]["low"], found["launch_us"]["high"]) == (20.0, 20.0)  # a start every 20 us
    moved = 3 * 1024 * 2048 * 2 / 8e-6 / 1e9  # bytes in 8 us
    assert found["bandwidth_gbs"]["high"] == pytest.approx(moved, rel=1e-4)

    file = store(found, tmp_path / "chips.json")
    stored = json.loads(file.read_text())["chips"]["910B2"]["launch_us"]
    assert stored["measured"]["confidence"] == "measured" and stored["measured"]["low"] == 20.0
    assert stored["sourced"]["low"] == find("910B2").launch.low * 1e6  # the sourced range stands beside it

    chip = find_measured("910B2", file)
    assert chip.launch.low == pytest.approx(20e-6) and chip.launch.confidence == "measured"
    assert "sourced: 16..31" in chip.launch.source and chip.peak == find("910B2").peak
    with pytest.raises(ValueError, match="no measured figures of 910B4"):
        find_measured("910B4", file)


def test_a_second_chip_joins_the_file_and_a_foreign_file_is_refused(tmp_path):
    found = calibration(read_trace(TRACES / "level1"), "910B2")
    file = store(found, tmp_path / "chips.json")
    store({**found, "chip": "910B4"}, file)
    assert set(json.loads(file.read_text())["chips"]) == {"910B2", "910B4"}
    file.write_text("[]")
    with pytest.raises(ValueError, match="not a file of measured chips"):
        store(found, file)


def test_what_cannot_calibrate_a_chip(tmp_path):
    for folder in ("simulator", "msprof", "cpu"):
        with pytest.raises(TraceError):
            calibration(read_trace(TRACES / folder), "910B2")


def test_quantiles_are_those_of_numpy():
    import numpy as np

    values = sorted([1.0, 4.0, 9.0, 16.0, 25.0])
    for share in (0, 0.1, 0.25, 0.5, 0.9, 1):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))
