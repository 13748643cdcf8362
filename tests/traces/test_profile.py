"""`deskocr profile` on a CPU: written where `read_trace` finds it, in the vendor's columns too."""

from __future__ import annotations

import collections
import csv
import json

import pytest

from deskocr_kit.opcount.names import effect_of_name
from deskocr_kit.opcount.recorder import Recorder
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from deskocr_kit.traces import read_trace
from deskocr_kit.traces.profile import profile_page
from deskocr_kit.traces.vendor import HEAD
from model.images import load_image

TOKENS = 4


@pytest.fixture(scope="module")
def reader():
    return Reader.load("nano", "cpu", "fp32")


@pytest.fixture(scope="module")
def image():
    return load_image(sample_pages()[0][0])


@pytest.fixture(scope="module")
def folder(reader, image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    profile_page(reader, image, folder, tokens=TOKENS)
    return folder


def test_all_forms_of_one_profile_agree(folder):
    own = read_trace(folder / "torch_trace.json")
    for name in ("op_statistic.csv", "trace_view.json"):
        other = read_trace(folder / "ASCEND_PROFILER_OUTPUT" / name)
        assert other.count == own.count and abs(other.device_us - own.device_us) < 1
        assert [row.type for row in other.by_type()[:5]] == [row.type for row in own.by_type()[:5]]


def test_the_vendor_files_have_the_vendor_columns(folder):
    with (folder / "ASCEND_PROFILER_OUTPUT" / "op_statistic.csv").open() as file:
        rows = list(csv.reader(file))
    assert tuple(rows[0]) == HEAD
    assert sum(float(row[-1]) for row in rows[1:]) == pytest.approx(100, abs=0.2)
    view = json.loads((folder / "ASCEND_PROFILER_OUTPUT" / "trace_view.json").read_text())
    assert isinstance(view, list) and isinstance(view[1]["ts"], str) and "not an NPU" in str(view[0])


def test_the_folder_says_what_it_is_of(folder):
    about = read_trace(folder).about
    assert about["checkpoint"] == "nano" and about["device"]["device"] == "cpu" and not about["simulated"]
    assert (
        about["tokens"] == TOKENS
        and about["slots"]["moe"] == "auto"
        and about["slots"]["conv2d"] == "reference"
    )


def test_the_profile_has_the_launches_that_the_recorder_counts(reader, image, folder):
    recorder = Recorder(reader.model)
    with recorder:
        reader.read(image, "free", max_new_tokens=TOKENS)
    counted = collections.Counter()
    for call, n in recorder.counts.items():
        if call.kind == "launch":
            counted[call.operator.partition(".")[0]] += n
    seen = collections.Counter({row.type: row.count for row in read_trace(folder).by_type()})
    # The recorder gives attention the memory layout of an NPU, so a reshape after it copies.
    assert {name for name in counted | seen if counted[name] != seen[name]} <= {"aten::clone"}
    assert 0 <= counted["aten::clone"] - seen["aten::clone"] <= 12


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("aten::addmm", "launch"), ("aten::matmul", "launch"), ("aten::linear", "parts"), ("aten::t", "view"),
        ("aten::empty", "alloc"), ("aten::item", "read"), ("aten::to", "parts"), ("aten::softmax", "launch"),
        ("ProfilerStep#1", "parts"), ("aten::no_such_thing", "parts"), ("autograd::engine", "parts"),
    ],
)  # fmt: skip
def test_the_definition_of_a_launch_by_name(name, effect):
    assert effect_of_name(name) == effect
