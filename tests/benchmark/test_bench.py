"""`deskocr bench`: its arithmetic on made-up times, its file, its state after an interrupt, its verdicts."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from deskocr_kit.benchmark.child import bench
from deskocr_kit.benchmark.compare import compare_benchmarks, load_benchmark, original, timing_verdict
from deskocr_kit.benchmark.frame import bench_frame
from deskocr_kit.benchmark.pages import subjects
from deskocr_kit.benchmark.spec import FILE, PARTIAL, BenchSpec
from deskocr_kit.benchmark.summary import category, gaps, spread, success, success_share, summarise, tpot
from model.modes import MODES, Mode
from tests.helpers.fresh_process import deskocr
from tests.helpers.paths import NANO, ROOT

INVOICE = NANO / "pages" / "2_invoice.png"
SCHEMA = json.loads((ROOT / "deskocr_kit" / "benchmark" / "bench.schema.json").read_text())


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    """One short and one medium page, in a real child process."""
    return bench(BenchSpec(device="cpu", count=1, repeats=2), tmp_path_factory.mktemp("bench"), quiet=True)


# ---------------------------------------------------------------------- arithmetic
@pytest.mark.parametrize(
    "characters, name",
    [(0, "short"), (49, "short"), (50, "medium"), (499, "medium")]
    + [(500, "between"), (1000, "between"), (1001, "long")],
)
def test_categories(characters, name):
    assert category(characters) == name


def test_tpot_leaves_out_the_first_token():
    assert tpot(e2e=5.0, ttft=1.0, tokens=5) == 1.0
    assert tpot(1.0, 1.0, 1) is None
    assert gaps([1.0, 1.5, 3.0]) == [0.5, 1.5]


def test_percentiles():
    assert spread(range(101)) == {"n": 101, "mean": 50, "p50": 50, "p99": 99}
    assert spread([None, 2.0]) == {"n": 1, "mean": 2, "p50": 2, "p99": 2}
    assert spread([]) is None


def test_four_of_four_is_not_certainty():
    four = success_share(4, 4)
    assert four["rate"] == 1 and four["interval_95"][0] == pytest.approx(0.5101, abs=1e-4)
    assert success_share(0, 0) is None


def made_up(characters=100, edits=5, **given) -> dict:
    bench = {"preprocess": 1, "vision": 2, "prefill": 3, "decode": 4, "post": 0.5, "ttft": 6.0, "e2e": 10.0,
           "seconds": 10.5, "cpu": 5.0, "gaps": [1.0] * 4}  # fmt: skip
    rate = edits / characters
    page = {"name": "a", "category": category(characters), "characters": characters,
            "characters_read": characters, "vision_tokens": 73, "new_tokens": 5, "edits": edits, "cer": rate,
            "ned": rate, "truncated": False, "loop": False, "runs": [bench]}  # fmt: skip
    page |= given
    return {**page, "success": success(page, 0.1)}


def test_summary_of_made_up_pages():
    pages = [made_up(), made_up(20, 10), made_up(100, 0, loop=True), made_up(100, 0, truncated=True)]
    found = summarise(pages, 0.1, True)
    assert list(found) == ["all", "short", "medium"]
    whole = found["all"]
    assert whole["cer"]["value"] == pytest.approx(15 / 320)
    assert whole["ned"]["value"] == pytest.approx((0.05 + 0.5) / 4)
    assert (whole["loops"]["count"], whole["truncated"]["count"], whole["success"]["count"]) == (1, 1, 1)
    assert whole["tpot"]["mean"] == 1.0 and whole["ttft"]["p50"] == 6.0 and whole["itl"]["n"] == 16
    assert whole["tokens_per_second"] == 1.0 and whole["cpu_share"] == 0.5
    assert whole["characters_per_second"] == pytest.approx(320 / 42)
    assert "ttft" not in summarise(pages, 0.1, False)["all"]  # a simulated device


def test_success_is_defined():
    assert made_up(100, 10)["success"] is True and made_up(100, 11)["success"] is False
    assert made_up(characters_read=0)["success"] is False
    assert success({**made_up(), "cer": None}, 0.1) is None


def test_verdicts():
    base = [1.0, 1.02, 0.98, 1.01]
    assert timing_verdict(base, [x * 0.5 for x in base])["verdict"] == "better"
    assert timing_verdict(base, [x * 2 for x in base])["verdict"] == "worse"
    assert timing_verdict(base, [x * 1.01 for x in base])["verdict"] == "noise"  # too small to matter
    assert timing_verdict([1, 5, 1, 5], [2, 3, 4, 1, 6])["verdict"] == "noise"
    assert timing_verdict([], [1])["ratio"] is None
    for old, new in (([0.0, 0.0], [1.0, 2.0]), ([0.0], [0.0]), ([5e-324, 1e-300], [1e300, 1e300])):
        assert timing_verdict(old, new) == {"ratio": None, "interval_95": None, "verdict": "noise"}


# ---------------------------------------------------------------------- the file
def test_the_file_is_as_described(result):
    jsonschema.validate(result, SCHEMA)
    assert result["complete"] and not result["simulated"]
    assert {page["category"] for page in result["pages"]} == {"short", "medium"}


def test_phases_add_up(result):
    for page in result["pages"]:
        assert len(page["runs"]) == 2
        for each in page["runs"]:
            parts = sum(each[name] for name in ("preprocess", "vision", "prefill", "decode", "post"))
            assert parts == pytest.approx(each["seconds"], rel=1e-6)
            assert len(each["gaps"]) == page["new_tokens"] - 1
            assert each["ttft"] + sum(each["gaps"]) == pytest.approx(each["e2e"], rel=1e-3)
            assert each["preprocess"] + each["vision"] + each["prefill"] <= each["ttft"] <= each["seconds"]


def test_counts_and_limits(result):
    phases, limits = result["counts"]["phases"], result["limits"]
    assert phases["token"]["launches"] > 0 and phases["vision"]["launches"] > 0
    page = result["counts"]["page"]
    assert page["new_tokens"] == result["pages"][0]["new_tokens"] > 1
    assert page["launches"] > phases["vision"]["launches"] + phases["prefill"]["launches"]
    rate = result["summary"]["all"]["tokens_per_second"]
    success_share = limits["active_bytes_per_token"] * rate / limits["read_bytes_per_second"]
    assert limits["bandwidth_share"] == pytest.approx(success_share)
    assert limits["active_bytes_per_token"] < result["load"]["weight_bytes"]


def test_a_row_for_each_reading(result):
    table = bench_frame(result)
    assert len(table) == sum(len(page["runs"]) for page in result["pages"]) == 4
    first = result["pages"][0]["runs"][1]
    row = table[(table["name"] == result["pages"][0]["name"]) & (table["repeat"] == 1)].iloc[0]
    assert row["vision"] == first["vision"] and row["ttft"] + row["tpot"] * (row["new_tokens"] - 1) == (
        pytest.approx(first["e2e"])
    )
    untimed = {**result, "pages": [{**result["pages"][0], "runs": []}]}
    assert len(bench_frame(untimed)) == 1 and "ttft" not in bench_frame(untimed)


def test_the_stamp_repeats_it_and_tells_no_secrets(result):
    stamp = result["stamp"]
    assert stamp["command"] == "deskocr bench --device cpu --count 1 --repeats 2"
    assert len(stamp["checkpoint"]["sha256"]) == 64
    told = json.dumps(result)
    assert str(Path.home()) + "/" not in told and str(ROOT) not in told


def test_secrets_and_paths_stay_out(monkeypatch):
    from deskocr_kit.benchmark.stamp import variables

    monkeypatch.setenv("DESKOCR_API_KEY", "s3cret")
    monkeypatch.setenv("DESKOCR_MODEL", "/home/me/weights")
    monkeypatch.setenv("TASK_QUEUE_ENABLE", "2")
    found = variables()
    assert found["TASK_QUEUE_ENABLE"] == "2" and not {"DESKOCR_API_KEY", "DESKOCR_MODEL"} & set(found)


def test_drawn_pages_repeat_and_fit_the_checkpoint(monkeypatch):
    first, again = (subjects(BenchSpec(count=2), "tiny") for _ in range(2))
    assert [page.truth for page in first] == [page.truth for page in again]
    assert [category(len(page.truth)) for page in first] == ["short"] * 2 + ["medium"] * 2
    monkeypatch.setitem(MODES, "wide", Mode("wide", 1536, 640, True))
    assert len(subjects(BenchSpec(count=1), "wide")) == 4, "a mode is judged by its size, not by its name"
    large = subjects(BenchSpec(count=1), "gundam")
    assert [category(len(page.truth)) for page in large] == ["short", "medium", "between", "long"]


@pytest.fixture(scope="module")
def given_page(tmp_path_factory):
    """The command on a page of the user's: (folder, what was printed)."""
    out = tmp_path_factory.mktemp("given")
    words = ("bench", INVOICE, "--device", "cpu", "--repeats", 1, "--warmup", 0, "--max-tokens", 20)
    done = deskocr(*words, "--compare", "original", "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_a_given_page_finds_its_truth_but_is_not_quoted(given_page):
    found = load_benchmark(given_page[0] / FILE)
    (record,) = found["pages"]
    assert record["cer"] is not None and "text" not in record and "truth" not in record
    assert str(INVOICE.parent) not in json.dumps(found)


# ---------------------------------------------------------------------- interrupted
def hears_ctrl_c():
    """Restore the handler of Ctrl-C: children of a test that runs in the background ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_ctrl_c_keeps_what_is_done(tmp_path):
    (tmp_path / FILE).write_text("an earlier result")
    command = [sys.executable, "-m", "deskocr_kit", "bench", "--device", "cpu", "--count", "200"]
    child = subprocess.Popen(
        [*command, "--out", str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=dict(os.environ), preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    partial, deadline = tmp_path / PARTIAL, time.monotonic() + 300
    while time.monotonic() < deadline and child.poll() is None:
        if partial.exists() and json.loads(partial.read_text())["pages"]:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)  # the parent sends it to its child
    _, told = child.communicate(timeout=120)
    assert child.returncode == 130, told
    kept = load_benchmark(partial)
    jsonschema.validate(kept, SCHEMA)
    assert not kept["complete"] and kept["stopped"] == "interrupted" and kept["pages"] and kept["summary"]
    assert "Traceback" not in told and (tmp_path / FILE).read_text() == "an earlier result"


def test_the_command_measures_a_given_page_and_says_where(given_page):
    out, done = given_page
    assert str(out / FILE) in done.stderr and "not measured by this kit" in done.stdout
    (read,) = load_benchmark(out / FILE)["pages"]
    assert read["name"] == "2_invoice.png" and read["new_tokens"] <= 20


# ---------------------------------------------------------------------- against another
def test_compare_with_itself_is_noise_and_half_the_time_is_better(result):
    same = compare_benchmarks(result, result)
    assert not same["why_not"] and not same["differs"]
    assert {each["verdict"] for each in same["times"].values()} == {"noise"}
    faster = copy.deepcopy(result)
    for page in faster["pages"]:
        for each in page["runs"]:
            each["ttft"] /= 2
            each["e2e"] /= 2
    faster["counts"]["phases"]["token"]["launches"] -= 1
    found = compare_benchmarks(result, faster)
    assert {each["verdict"] for each in found["times"].values()} == {"better"}
    assert found["counts"]["token"]["launches"][2] == "better"


def test_no_ratio_between_devices_or_checkpoints(result):
    other = copy.deepcopy(result)
    other["stamp"]["device"]["name"] = "another"
    refused = compare_benchmarks(other, result)
    assert refused["times"] == {} and refused["why_not"] == ["device differs"]
    other["stamp"]["checkpoint"]["sha256"] = "0"
    assert compare_benchmarks(other, result)["counts"] == {}


def test_what_is_no_benchmark_is_refused(tmp_path):
    wrong = tmp_path / "x.json"
    for content in ("{", "[]", '{"format": 99}'):
        wrong.write_text(content)
        with pytest.raises(ValueError, match=r"x\.json"):
            load_benchmark(wrong)


def test_the_published_figures_have_a_source():
    found = original()
    assert found["source"] and found["device"] and len(found["figures"]) == 7
