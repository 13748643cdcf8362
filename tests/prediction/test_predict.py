"""Predictions: arithmetic on made-up work, sources of the table, and the bound compared with this CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.prediction.checked import cpu_check
from deskocr_kit.prediction.chips import Chip, Quantity, find, names, table
from deskocr_kit.prediction.estimate import NAMED, Prediction, _place, times
from deskocr_kit.prediction.original_loop import census_original
from deskocr_kit.prediction.roofline import draw
from deskocr_kit.prediction.work import PLANS, Phase, Work, work_of
from model import DeepseekOCRForCausalLM
from tests.helpers.paths import NANO


def made_up(peak=(100, 200), bandwidth=(10, 20), launch=(0.5, 1)) -> Chip:
    def quantity(pair):
        return pair and Quantity(*pair, "made up", "given")

    return Chip("made up", {"fp16": quantity(peak)}, quantity(bandwidth), quantity(launch))


PHASE = Phase(launches=4, syncs=0, flops=1000, bytes=40)


def test_arithmetic():
    found = times(PHASE, made_up(), "fp16")
    assert (found.bound.low, found.bound.high) == (5, 10)  # 1000 FLOP at 200 and 100 FLOP/s
    assert (found.launch.low, found.launch.high) == (2, 4)
    assert found.expected == found.bound
    memory = times(replace(PHASE, bytes=400), made_up(), "fp16")
    assert (memory.bound.low, memory.bound.high) == (20, 40)
    busy = times(replace(PHASE, launches=30), made_up(), "fp16")
    assert (busy.expected.low, busy.expected.high) == (15, 30)


def test_ttft_lets_each_phase_have_its_own_limit():
    vision, prefill = replace(PHASE, launches=0), replace(PHASE, launches=30, flops=0)
    work = Work("original", {"vision": vision, "prefill": prefill, "decode": PHASE})
    made = Prediction(made_up(), "fp16", "", "tiny", 8, [work])
    assert (made.ttft("original").expected.low, made.ttft("original").expected.high) == (5 + 15, 10 + 30)


@pytest.mark.parametrize("name", ["launches", "flops", "bytes"])
def test_more_work_never_costs_less(name):
    for factor in (2, 10, 1000):
        less = times(PHASE, made_up(), "fp16").expected
        more = times(replace(PHASE, **{name: getattr(PHASE, name) * factor}), made_up(), "fp16").expected
        assert more.low >= less.low and more.high >= less.high
    assert more.low > less.low


@pytest.mark.parametrize(("name", "sign"), [("peak", -1), ("bandwidth", -1), ("launch", 1)])
def test_a_better_chip_never_costs_more(name, sign):
    work = Phase(launches=40, syncs=0, flops=4000, bytes=400)
    ranges = [(n, 2 * n) for n in (1, 5, 50, 500)]
    found = [times(work, made_up(**{name: each}), "fp16").expected for each in ranges]
    for end in ("low", "high"):
        seconds = [getattr(each, end) * sign for each in found]
        assert seconds == sorted(seconds) and seconds[0] < seconds[-1]


def test_what_is_not_published_is_not_predicted():
    chip = find("H100")
    found = times(PHASE, chip, "fp16")
    assert chip.launch is None and found.launch is None and found.expected == found.bound
    with pytest.raises(ValueError, match="fp32: not published"):
        times(PHASE, chip, "fp32")
    with pytest.raises(ValueError, match="unknown chip '910Z': use 910B1"):
        find("910Z")
    assert find("ascend910b2").name == "910B2"
    given = times(PHASE, chip.with_launch(5, 20), "fp16").launch
    assert given.low == pytest.approx(20e-6) and given.high == pytest.approx(80e-6)
    for wrong in ((20, 5), (0, 1), (float("nan"), 1)):
        with pytest.raises(ValueError, match="low <= high, got"):
            chip.with_launch(*wrong)


@pytest.mark.parametrize("name", names())
def test_every_figure_has_a_source_and_an_order(name):
    chip = find(name)
    for found in (*chip.peak.values(), chip.bandwidth, chip.launch):
        assert found is None or (found.source and found.confidence.split()[0] in ("low", "medium", "high"))
    for dtype, peak in chip.peak.items():
        if peak is not None:
            found = times(PHASE, chip, dtype)
            assert 0 < found.bound.low <= found.bound.high
            assert found.expected.low >= found.bound.low and found.expected.high >= found.bound.high
    assert all(row["differs"] and row["source"] for row in table()["published"])


def test_beside_published_figures():
    found = [times(PHASE, made_up(), "fp16")]
    assert [_place(x, found) for x in (4, 7, 11, None)] == ["below", "inside", "above", None]
    work = [Work(name, dict.fromkeys(("vision", "prefill", "decode"), PHASE)) for name in PLANS]
    rows = Prediction(find("910B2"), "fp16", "", "gundam", 256, work).published()
    same = [row for row in rows if row["mode"] == "gundam"]
    assert same and {row["tpot"] for row in same} == {"above"}  # MindNLP, compared with four launches
    assert {row["tpot"] for row in rows if row["mode"] != "gundam"} == {"not comparable"}
    assert not Prediction(find("H100"), "fp16", "", "gundam", 256, work).published()


@pytest.fixture(scope="module")
def nano():
    return DeepseekOCRForCausalLM.from_pretrained(NANO, dtype=torch.float32, device="cpu")


def test_the_plans_start_fewer_operators_for_the_same_sums(nano):
    works = work_of(nano.config, "tiny", dtype=torch.float32)
    assert [work.plan for work in works] == list(PLANS)
    for less, more in ((1, 0), (2, 1), (3, 2)):
        for phase in ("prefill", "decode"):
            assert works[less].phases[phase].launches < works[more].phases[phase].launches
    portable, graph = works[1].phases, works[4].phases
    assert graph["vision"] == portable["vision"] and graph["prefill"] == portable["prefill"]
    assert graph["decode"] == replace(portable["decode"], launches=1)
    for phase in ("vision", "prefill", "decode"):
        assert len({(work.phases[phase].flops, work.phases[phase].bytes) for work in works}) == 1
    waits = [work.phases["decode"].syncs for work in works]
    assert waits[0] > waits[1] >= waits[2] >= waits[3]
    assert works[0].phases["decode"].launches == census_original(nano.config, dtype=torch.float32).launches()


def test_a_plan_counts_the_same_alone(nano):
    """The sums inside of kernels are not seen, so they come from another plan."""
    together = {work.plan: work for work in work_of(nano.config, "tiny", dtype=torch.float32)}
    for name in ("kernels", "graph"):
        assert work_of(nano.config, "tiny", dtype=torch.float32, plans=(name,)) == [together[name]]


def test_a_token_with_kernels_on_a_910b2_is_predicted_below_2500_us():
    """At the upper end of the launch cost, official size; a graph leaves the bound of the bandwidth."""
    kernels, graph = work_of(
        mode="tiny", plans=("kernels", "graph")
    )  # a token's launches are those of any page
    made = Prediction(find("910B2"), "fp16", "", "tiny", 256, [kernels, graph])
    assert made.tpot("kernels").bound.high < made.tpot("kernels").expected.high <= 2.5e-3
    assert made.tpot("graph").expected == made.tpot("graph").bound == made.tpot("kernels").bound


def test_longer_readings_read_more_of_the_cache(nano):
    short, long = (work_of(nano.config, "tiny", tokens=n, plans=("portable",))[0] for n in (2, 2000))
    assert long.phases["decode"].bytes > short.phases["decode"].bytes
    assert long.phases["prefill"] == short.phases["prefill"]


def test_the_lower_bound_holds_on_this_cpu(nano):
    """In processor seconds of one thread, so that other programs on the machine do not matter."""
    made, measured = cpu_check(nano)
    for name, found in (("ttft", made.ttft("original")), ("tpot", made.tpot("original"))):
        assert 0 < found.bound.low <= measured[name], (name, found, measured)
        assert found.launch.low <= measured[name], (name, found, measured)
    assert "measured on this CPU" in repr(made)


def test_the_command_names_it_a_prediction(tmp_path):
    how = ["predict", "--model", "nano", "--mode", "tiny"]
    run = CliRunner().invoke(app, [*how, "--chip", "910B2", "--out", str(tmp_path / "p.png")])
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith(NAMED) and "assumed: launch cost: 16..31 us" in run.stdout
    assert (tmp_path / "p.png").stat().st_size > 10_000
    run = CliRunner().invoke(app, [*how, "--chip", "H200", "--json"])
    told = json.loads(run.stdout)
    assert told["kind"] == NAMED and told["plans"]["fused"]["tpot"]["launch"] is None and told["assumed"]
    run = CliRunner().invoke(app, [*how, "--launch-us", "9..2"])
    assert run.exit_code == 2 and "expected two numbers" in run.output


def test_shown_in_a_notebook_and_drawn():
    work = [Work(name, dict.fromkeys(("vision", "prefill", "decode"), PHASE)) for name in PLANS]
    made = Prediction(made_up(launch=None), "fp16", "<page>", "tiny", 8, work)
    html = made._repr_html_()
    assert NAMED in html and "&lt;page&gt;" in html and "not published" in html
    assert "PREDICTION" in draw(made).get_suptitle()


def test_the_marks_of_the_bounds_lie_inside_the_axes_and_the_axis_says_that_it_is_logarithmic():
    work = [Work(name, dict.fromkeys(("vision", "prefill", "decode"), PHASE)) for name in PLANS]
    for axis in draw(Prediction(made_up(launch=None), "fp16", "page", "tiny", 8, work)).axes:
        left = min(min(line.get_xdata()) for line in axis.lines)
        assert axis.get_xlim()[0] < 0.9 * left and "logarithmic" in axis.get_xlabel()
