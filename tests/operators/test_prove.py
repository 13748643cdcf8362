"""`deskocr prove`: correct candidates pass, planted faults are found, the choice follows the figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.device.counting import counted
from deskocr_kit.device.dtypes import DTYPES
from deskocr_kit.nano_training.recipe import nano_config
from deskocr_kit.operators import substitutes
from deskocr_kit.operators.prove import runner
from deskocr_kit.operators.prove.choice import choose
from deskocr_kit.operators.prove.probes import Sizes, probes
from deskocr_kit.operators.prove.proof import folder_name, prove
from deskocr_kit.operators.prove.runner import CANNOT, OVER, PASS, SILENT, WRONG, Row, budgets
from deskocr_kit.operators.substitutes.registry import SLOTS, candidates, default
from model import DeepseekOCRConfig

CPU = torch.device("cpu")
NANO = probes(Sizes.of(nano_config()))


def slot_rows(slot: str, dtype=torch.float32, real=False) -> list[Row]:
    mine = [p for p in NANO if p.slot == slot and p.real <= real]
    return [row for p in mine for row in runner.run_probe(p, CPU, dtype, repeats=1)]


def test_every_slot_is_probed_with_the_models_shapes_and_with_hard_cases():
    for slot in SLOTS:
        mine = [p for p in NANO if p.slot == slot]
        assert any(p.real for p in mine) and any(not p.real for p in mine), slot
        names = [p.name for p in mine]
        assert len(names) == len(set(names))


def test_the_official_sizes_are_the_five_layers():
    config = DeepseekOCRConfig()
    shapes = []
    for probe in probes(Sizes.of(config)):
        if probe.slot == "conv2d" and probe.real:
            x, weight, _, stride, padding = probe.make(torch.Generator().manual_seed(0))
            shapes.append((tuple(x.shape[1:]), tuple(weight.shape), stride, padding))
    assert shapes == [
        ((3, 1024, 1024), (768, 3, 16, 16), 16, 0), ((768, 64, 64), (256, 768, 1, 1), 1, 0),
        ((256, 64, 64), (256, 256, 3, 3), 1, 1), ((256, 64, 64), (512, 256, 3, 3), 2, 1),
        ((512, 32, 32), (1024, 512, 3, 3), 2, 1),
    ]  # fmt: skip


def test_budgets_are_complete_and_have_reasons():
    table = budgets()
    assert set(table) == set(SLOTS)
    for row in table.values():
        assert set(row) == set(DTYPES.values()) | {"reason"} and len(row["reason"]) > 20


@pytest.mark.parametrize("slot", SLOTS)
def test_hard_cases_pass_on_the_cpu(slot):
    for dtype in (getattr(torch, name) for name in DTYPES.values()):
        for row in slot_rows(slot, dtype):
            if row.candidate == "grouped_mm" and not hasattr(torch, "_grouped_mm"):
                assert row.verdict == "cannot run here" and "it needs torch 2.8" in row.why
            elif not row.candidate.startswith("npu_"):
                assert row.verdict == PASS, row


@pytest.mark.parametrize("slot", ["place_images", "moe", "resize_grid"])
def test_real_cases_are_measured(slot):
    rows = [row for row in slot_rows(slot, real=True) if row.real and row.verdict == PASS]
    assert rows
    for row in rows:
        assert row.error <= row.budget and row.seconds > 0 and row.launches >= 0 and row.extra_bytes >= 0
        assert (row.ratio == 1) == (row.candidate == "reference") or row.ratio > 0


def fault_unfold(x, weight, bias, stride, padding):
    return F.conv2d(x, weight, bias, stride, 0 if padding else padding)


def fault_scatter(self, mask, source):
    return self.masked_scatter(mask, source)  # a copy: the base of the view does not change


def fault_extra(embeds, mask, source, allow_extra=False):
    return embeds.masked_scatter(mask[..., None], source)  # more rows than places: no error


FAULTS = [
    ("conv2d", fault_unfold, WRONG),
    ("masked_scatter_", fault_scatter, WRONG),
    ("place_images", fault_extra, SILENT),
    ("gelu", lambda x: F.gelu(x, approximate="tanh"), OVER),
    ("rms_norm", lambda x, w, eps: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1) * w, OVER),
    ("attention", lambda q, k, v, mask=None, causal=False: F.scaled_dot_product_attention(q, k, v), WRONG),
    (
        "moe",
        lambda x, gu, down, ids, w: candidates("moe")["reference"](x, gu, down, ids, w / w.sum(-1, True)),
        WRONG,
    ),
    ("quick_gelu", lambda x: x / 0, WRONG),
    ("swiglu", lambda x: (_ for _ in ()).throw(NotImplementedError("no kernel")), CANNOT),
]


@pytest.mark.parametrize(("slot", "fault", "verdict"), FAULTS, ids=[f[0] for f in FAULTS])
def test_planted_faults_are_found_and_never_planned(slot, fault, verdict, monkeypatch):
    monkeypatch.setattr(runner, "candidates", lambda name: {**candidates(name), "faulty": fault})
    rows = slot_rows(slot)
    found = {row.verdict for row in rows if row.candidate == "faulty"}
    assert verdict in found, rows
    for row in rows:  # as if it were the fastest
        if row.candidate == "faulty" and row.verdict == PASS:
            row.real, row.launches, row.extra_bytes, row.seconds, row.syncs = True, 0, 0, 0.0, 0
    chosen = choose(rows, "float32", simulated=False).get(slot, {})
    assert "faulty" not in {each["use"] for each in chosen.values()}


# ---------------------------------------------------------------------- the choice
def measured(candidate, seconds, probe="p", case="*", verdict=PASS, spread=0.0, **counts) -> Row:
    zero = dict.fromkeys(
        ("launches", "syncs", "h2d_bytes", "d2h_bytes", "fallbacks", "ai_cpu", "extra_bytes"), 0
    )
    return Row(
        "conv2d", candidate, probe, case, "float32", True, verdict, error=0.0, budget=1.0, seconds=seconds,
        spread=spread, **{**zero, **counts},
    )  # fmt: skip


def used(rows, simulated=False):
    return {case: each["use"] for case, each in choose(rows, "float32", simulated)["conv2d"].items()}


def test_the_fastest_that_passes_wins():
    rows = [measured("reference", 1.0), measured("fast", 0.5), measured("wrong", 0.1, verdict=OVER)]
    assert used(rows) == {"*": "fast"}


def test_a_gain_within_the_noise_is_none():
    assert used([measured("reference", 1.0), measured("fast", 0.97)]) == {"*": "reference"}
    assert used([measured("reference", 1.0, spread=0.3), measured("fast", 0.8)]) == {"*": "reference"}


def test_without_the_reference_the_next_best():
    rows = [measured("reference", 0.1, verdict=CANNOT), measured("slow", 3.0), measured("fast", 2.0)]
    assert used(rows) == {"*": "fast"}
    assert choose([measured("reference", 1.0, verdict=CANNOT)], "float32", False) == {}


def test_each_kind_of_call_has_its_choice_and_the_rest_a_general_one():
    rows = [
        measured("reference", 1.0, "a", "1x1"), measured("special", 0.1, "a", "1x1"),
        measured("reference", 9.0, "b", "3x3"), measured("general", 5.0, "b", "3x3"),
        measured("general", 2.0, "a", "1x1"),
    ]  # fmt: skip
    assert used(rows) == {"1x1": "special", "3x3": "general", "*": "general"}


def test_on_the_simulated_npu_counts_decide_and_times_do_not():
    rows = [measured("reference", 0.1, syncs=1, launches=2), measured("quiet", 9.0, launches=30)]
    assert used(rows, simulated=True) == {"*": "quiet"}
    because = choose(rows, "float32", True)["conv2d"]["*"]
    assert "seconds" not in because and because["syncs"] == 0
    assert used([measured("reference", 1.0), measured("same", 0.1)], simulated=True) == {"*": "reference"}


def test_never_slower_than_the_reference_in_any_call():
    """Twice as fast in total but slower for the small size: not chosen for a kind of call with both sizes."""
    rows = [
        measured("reference", 10.0, "prefill"), measured("reference", 0.1, "decode"),
        measured("split", 4.0, "prefill"), measured("split", 0.2, "decode"),
        measured("even", 8.0, "prefill"), measured("even", 0.1, "decode"),
    ]  # fmt: skip
    assert used(rows) == {"*": "even"}
    rows[3] = measured("split", 0.2, "decode", spread=1.5)  # a measurement without meaning
    assert used(rows) == {"*": "even"}, "then the next best, whose gain is one"


def test_a_planted_slow_candidate_is_never_chosen(monkeypatch):
    """Really measured: a correct candidate that does everything three times."""

    def slow(x):
        for _ in range(20):
            y = F.gelu(x)
        return y

    monkeypatch.setattr(runner, "candidates", lambda name: {"slow": slow, **candidates(name)})
    rows = slot_rows("gelu", real=True)
    assert {row.verdict for row in rows if row.candidate == "slow"} == {PASS}
    chosen = choose(rows, "float32", simulated=False)["gelu"]
    assert "slow" not in {each["use"] for each in chosen.values()}
    times = {row.candidate: row.seconds for row in rows if row.real and row.seconds}
    use = chosen["*"]["use"]
    assert times[use] <= times["reference"]


def test_ties():
    near = choose([measured("reference", 1.0), measured("near", 0.98)], "float32", False)["conv2d"]["*"]
    assert (near["use"], near["because"]) == ("reference", "nothing is faster by more than the noise")
    assert used([measured("reference", 1.0), measured("same", 1.0)]) == {"*": "reference"}
    assert used([measured("same", 1.0), measured("reference", 1.0)]) == {"*": "reference"}
    assert used([measured("first", 1.0), measured("second", 1.0)]) == {"*": "first"}
    same = [measured("same", 1.0, launches=2), measured("reference", 1.0, launches=2)]
    assert used(same, simulated=True) == {"*": "reference"}


def test_a_few_bytes_are_no_reason():
    rows = [
        measured("reference", 1, launches=2, extra_bytes=100),
        measured("b", 1, launches=2, extra_bytes=99),
    ]
    chosen = choose(rows, "float32", True)["conv2d"]["*"]
    assert chosen["use"] == "reference" and chosen["because"].startswith("the default stays: b saves too")


@pytest.mark.parametrize("simulated", [True, False])
def test_what_the_network_runs_stays_unless_another_is_better(simulated):
    assert default("rotary") == "rotary_in_place" and default("gelu") == "reference"
    seconds = {"reference": 1.0, "rotary_in_place": 0.8, "rotary_halves": 0.79}
    rows = [replace(measured(name, time, launches=3), slot="rotary") for name, time in seconds.items()]
    assert choose(rows, "float32", simulated)["rotary"]["*"]["use"] == "rotary_in_place"
    quick = [
        replace(row, seconds=0.4, launches=2) if row.candidate == "rotary_halves" else row for row in rows
    ]
    assert choose(quick, "float32", simulated)["rotary"]["*"]["use"] == "rotary_halves"
    slow = [
        replace(row, seconds=1.2, launches=4) if row.candidate == "rotary_in_place" else row
        for row in rows[:2]
    ]
    assert choose(slow, "float32", simulated)["rotary"]["*"]["use"] == "reference"


def test_the_plan_says_what_decided():
    """Waits count before launches, launches before bytes: hence `grouped` and `swiglu_in_place`."""
    grouped = [
        measured("reference", 1, syncs=10, launches=92), measured("grouped", 1, syncs=1, launches=47),
        measured("grouped_mm", 1, syncs=2, launches=33),
    ]  # fmt: skip
    chosen = choose(grouped, "float32", True)["conv2d"]["*"]
    assert (chosen["use"], chosen["because"]) == ("grouped", "fewer waits than grouped_mm (1, not 2)")
    swiglu = [
        measured("reference", 1, launches=2, extra_bytes=96),
        measured("in_place", 1, launches=2, extra_bytes=64),
    ]  # fmt: skip
    chosen = choose(swiglu, "float32", True)["conv2d"]["*"]
    assert chosen["because"] == "fewer bytes held than reference (64, not 96)"
    alone = choose([measured("reference", 1)], "float32", True)["conv2d"]["*"]
    assert alone["because"] == "the only one that passes"
    same = choose([measured("reference", 1), measured("b", 1)], "float32", True)["conv2d"]["*"]
    assert same["because"] == "costs what b costs"


# ---------------------------------------------------------------------- counting, reporting
def test_counting_without_a_simulator():
    x, mask = torch.randn(100, 64), torch.arange(100) % 2 == 0
    with counted(CPU) as counts:
        y = x.view(64, 100).t() + 1  # one launch, two views
        y.sum().item()  # one launch, one wait
        x[mask]  # one launch, one wait for the number of rows
    assert counts.launches >= 3 and counts.syncs == 2
    assert 25600 <= counts.extra_bytes < 3 * 25600
    with counted(CPU) as counts:
        x.t()
    assert (counts.launches, counts.syncs, counts.extra_bytes) == (0, 0, 0)


def test_report_and_plan_are_written(tmp_path):
    report = prove("cpu", ["fp32"], "nano", ["place_images", "rms_norm"], repeats=1, config=nano_config())
    assert not report.faults() and set(report.plan.choices["float32"]) == {"place_images", "rms_norm"}
    folder = report.save(tmp_path / folder_name("cpu", "nano"))
    assert sorted(p.name for p in folder.iterdir()) == [
        "operators.json",
        "operators.md",
        "operators.png",
        "plan.json",
    ]
    stored = json.loads((folder / "operators.json").read_text())
    assert stored["device"]["device"] == "cpu" and stored["command"].startswith("deskocr prove --device cpu")
    names = set(vars(report.rows[0])) - {"kernels"}  # none was started
    assert all(set(row) == names for row in stored["rows"]) and "kernels" not in stored
    text = (folder / "operators.md").read_text()
    assert "cumsum_where" in text and stored["command"] in text and "pass" in text
    assert repr(report).count("\n") > 8 and "<table>" in report._repr_html_()
    assert report._repr_html_().count("<b>pass</b>") == len(report.table())


def test_names_that_are_unknown():
    with pytest.raises(ValueError, match="unknown dtype 'fp64': use fp32, bf16, fp16"):
        prove("cpu", ["fp64"], config=nano_config())
    with pytest.raises(ValueError, match="no slot named 'conv3d'"):
        prove("cpu", ["fp32"], slots=["conv3d"], config=nano_config())
    assert folder_name("npu-sim:as-believed", "nano") == "npu-sim-as-believed-nano"
    assert substitutes.SLOTS
