"""Every form of trace, from files made by hand: see tests/data/traces/README.md."""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.traces import TraceError, compare_traces, read_trace
from deskocr_kit.traces.tables import bytes_of, core_of, rows_of, shapes_of
from tests.helpers.paths import DATA

TRACES = DATA / "traces"
RUN = TRACES / "level0" / "host_4711_20260102030405678_ascend_pt"
OUT = RUN / "ASCEND_PROFILER_OUTPUT"
HEAD = "Device_id,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),Block Dim\n"


def by_type(found: dict) -> list[tuple]:
    return [(row["type"], row["count"], row["us"]) for row in found["by_type"]]


FIVE = [("MaskedScatter", 1, 5000.25), ("Sort", 1, 100.0), ("MatMulV2", 2, 60.0), ("Cast", 1, 20.0)]


@pytest.mark.parametrize("place", [TRACES / "level0", RUN, OUT, OUT / "kernel_details.csv"])
def test_a_folder_is_read_from_itself_and_from_above(place):
    found = read_trace(place).to_json()
    assert (found["kernels"], found["device_us"], found["busy_us"]) == (5, 5180.25, 5169.75)
    assert found["ai_cpu"] == {"count": 2, "us": 5100.25}  # AI_CPU and AICPU
    assert by_type(found) == FIVE


def test_the_tables_beside_the_kernels_are_added():
    found = read_trace(TRACES / "level0").to_json()
    assert found["idle_us"] == 830.13 and found["idle_from"] == "step times"  # the profiler's own Free
    assert found["steps"][0]["idle_share"] == round(830.13 / 6000, 4)
    assert found["about"] == {"cann_version": "8.5.0", "torch_npu_version": "2.6.0.post5"}
    assert found["memory"]["PTA"] == {"allocated_mb": 6900.25, "reserved_mb": 7000.0}
    assert found["host_api"][0] == {"api": "aclrtSynchronizeStream", "level": "acl", "count": 3, "us": 5200.5}


def test_what_deskocr_profile_noted_stands_above_the_profilers_folder(tmp_path):
    shutil.copytree(RUN, tmp_path / "out" / RUN.name)
    note = {"checkpoint": "nano", "tokens": 8, "simulated": False}
    (tmp_path / "out" / "deskocr_profile.json").write_text(json.dumps(note))
    about = read_trace(tmp_path).about
    assert about["checkpoint"] == "nano" and about["cann_version"] == "8.5.0"


def test_a_compressed_trace_is_read(tmp_path):
    whole = (OUT / "trace_view.json").read_bytes()
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(whole))
    assert read_trace(tmp_path).count == 5
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(whole)[:-40])
    with pytest.raises(TraceError):
        read_trace(tmp_path)


@pytest.mark.parametrize("name", ["op_statistic.csv", "trace_view.json"])
def test_two_forms_of_one_run_agree(name):
    found = read_trace(OUT / name).to_json()
    assert (found["kernels"], found["device_us"], by_type(found)) == (5, 5180.25, FIVE)
    assert found["ai_cpu"] == {"count": 2, "us": 5100.25}


def test_without_step_times_idle_is_the_gaps_and_without_starts_it_is_unknown():
    found = read_trace(OUT / "kernel_details.csv").to_json()
    assert found["idle_us"] == pytest.approx(230.13) and found["idle_from"] == "gaps"
    found = read_trace(OUT / "op_statistic.csv").to_json()
    assert found["busy_us"] is None and found["idle_us"] is None and found["idle_from"] is None


def test_microseconds_since_1970_keep_their_nanoseconds():
    (first, second, *_) = read_trace(OUT / "kernel_details.csv").kernels
    assert str(second.start - first.start) == "20.000"  # a float64 of that size is exact to 0.25 only


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("level1", (26, 226.0, 226.0, 378.0, 0)),
        ("steps", (3, 35.0, 35.0, 90.0, 0)),  # two devices: busy and idle per device, added
        ("msprof", (3, 935.0, 935.0, 70.0, 1)),  # op_summary under another name
        ("cuda", (2, 15.0, 15.0, 7.5, 0)),
        ("cpu", (3, 57.0, 57.0, 26.0, 0)),
    ],
)
def test_sums_of_each_form(folder, expected):
    found = read_trace(TRACES / folder).to_json()
    keys = ("kernels", "device_us", "busy_us", "idle_us")
    assert (*(found[key] for key in keys), found["ai_cpu"]["count"]) == expected


def test_an_operator_on_a_cpu_counts_once_with_what_it_calls():
    assert by_type(read_trace(TRACES / "cpu").to_json()) == [
        ("aten::addmm", 1, 40.0),  # linear counts as its parts; t, expand and empty are no launches
        ("aten::softmax", 1, 10.0),
        ("aten::_to_copy", 1, 7.0),
    ]


def test_a_kernel_of_cuda_knows_its_operator():
    assert [kernel.operator for kernel in read_trace(TRACES / "cuda").kernels] == ["aten::mm", "aten::add"]


def test_the_record_of_the_simulator_has_counts_and_no_times():
    found = read_trace(TRACES / "simulator").to_json()
    assert found["simulated"] and found["kernels"] == 14 and found["device_us"] is None
    assert found["ai_cpu"] == {"count": 2, "us": None}
    assert by_type(found) == [("aten::mm", 12, None), ("aten::sort", 2, None)]


@pytest.mark.parametrize("name", ["step_trace_time.csv", "api_statistic.csv", "memory_record.csv"])
def test_a_table_without_kernels_is_read_too(name):
    found = read_trace(OUT / name).to_json()
    assert found["kernels"] == 0 and found["device_us"] is None and found["ai_cpu"]["count"] is None
    assert found["steps"] or found["host_api"] or found["memory"]


def test_operator_details_alone_give_the_time_per_operator():
    found = read_trace(OUT / "operator_details.csv").to_json()
    assert by_type(found) == [("aten::masked_scatter_", 1, 5000.25), ("aten::mm", 1, 60.0)]


def test_the_newest_of_several_runs_is_read_and_the_others_are_named(tmp_path):
    for time, us in (("20260101000000000", 1), ("20260301000000000", 2), ("20260201000000000", 3)):
        folder = tmp_path / f"h_1_{time}_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
        folder.mkdir(parents=True)
        (folder / "kernel_details.csv").write_text(HEAD + f"0,a,Add,AI_CORE,1.0\t,{us},0,1\n")
    found = read_trace(tmp_path)
    assert found.device_us == 2 and "20260101" in found.notes[-1] and "20260201" in found.notes[-1]


def test_a_renamed_file_is_read_by_its_columns(tmp_path):
    (tmp_path / "anything.csv").write_text((OUT / "op_statistic.csv").read_text())
    assert read_trace(tmp_path).form == "op_statistic"


# ---------------------------------------------------------------------- damage
def test_a_cut_last_row_is_skipped_and_reported(tmp_path):
    whole = (OUT / "kernel_details.csv").read_text()
    file = tmp_path / "kernel_details.csv"
    for cut in (20, 40):  # inside the last row
        file.write_text(whole[:-cut])
        found = read_trace(tmp_path)
        assert found.count == 4 and "the last row (line 6), which is cut" in found.notes[0]


def test_a_cut_timeline_gives_its_whole_events(tmp_path):
    whole = (OUT / "trace_view.json").read_text()
    file = tmp_path / "trace_view.json"
    file.write_text(whole[: whole.rfind("SortAiCpu")])
    found = read_trace(tmp_path)
    assert found.count == 4 and "the last event, which is cut" in found.notes[0]
    file.write_text(whole.rstrip().rstrip("]"))  # without its last bracket nothing is lost
    assert read_trace(tmp_path).count == 5
    cuda = (TRACES / "cuda" / "worker.pt.trace.json").read_text()
    file.write_text(cuda[: cuda.rfind("gpu_memcpy")])
    assert read_trace(tmp_path).count == 2


@pytest.mark.parametrize(
    "cell", ["N/A", "", "nan", "inf", "-1", "ten", "1e400", '"'], ids=lambda cell: repr(cell)
)
def test_a_row_without_a_usable_time_is_skipped_and_counted(tmp_path, cell):
    (tmp_path / "k.csv").write_text(HEAD + f"0,a,Add,AI_CORE,1,{cell},0,1\n" + "0,a,Add,AI_CORE,9,2,0,1\n")
    if cell == '"':  # an open quote swallows the rest of the file
        with pytest.raises(TraceError):
            read_trace(tmp_path)
        return
    found = read_trace(tmp_path)
    assert found.count == 1 and "line 2" in found.notes[0]


FOREIGN = {
    "empty.csv": "",
    "blank.csv": "\n\n  \n",
    "head_only.csv": HEAD,
    "other.csv": "date,amount\n2026-01-01,3\n",
    "text.csv": "Dear reader,\nthis is a letter.\n",
    "binary.csv": "Device_id\0\1\2",
    "empty.json": "",
    "object.json": '{"a": 1}',
    "list.json": "[1, 2, 3]",
    "cut.json": '{"traceEvents": [',
    "number.json": "7",
    "deep.json": "[" * 100_000,
    "no_kernels.json": '{"traceEvents": [{"ph": "X", "cat": "python", "name": "f", "ts": 1, "dur": 2}]}',
    "no_times.csv": HEAD + "0,a,Add,AI_CORE,1,N/A,0,1\n",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_text(FOREIGN[name])
    for place in (tmp_path, tmp_path / name):
        with pytest.raises(TraceError) as refused:
            read_trace(place)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_an_empty_or_missing_folder_and_a_pipe_are_refused(tmp_path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(TraceError):
            read_trace(place)
    os.mkfifo(tmp_path / "kernel_details.csv")  # opening it would wait for ever
    with pytest.raises(TraceError):
        read_trace(tmp_path)


def test_a_damaged_best_source_leaves_the_next_one(tmp_path):
    (tmp_path / "kernel_details.csv").write_text(HEAD)
    (tmp_path / "op_statistic.csv").write_text((OUT / "op_statistic.csv").read_text())
    found = read_trace(tmp_path)
    assert found.form == "op_statistic" and any("kernel_details" in note for note in found.notes)


def test_names_from_a_file_cannot_control_the_terminal(tmp_path):
    (tmp_path / "k.csv").write_text(HEAD + "0,a,\x1b[2JAdd,AI_CORE,1,2,0,1\n")
    assert "\x1b" not in repr(read_trace(tmp_path))


@pytest.mark.fuzz
@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "generated.csv"
    for content in (HEAD + text, text):
        file.write_text(content, encoding="utf-8", errors="replace", newline="")
        try:
            found = read_trace(file).to_json()
        except TraceError:
            continue
        json.dumps(found, allow_nan=False)
        assert found["device_us"] is None or math.isfinite(found["device_us"])


DAMAGED = ("level0", "level1", "cuda", "cpu", "simulator")


@pytest.mark.fuzz
@given(st.sampled_from(DAMAGED), st.data())
def test_any_damage_is_read_or_refused(tmp_path_factory, folder, data):
    source = data.draw(st.sampled_from(sorted(p for p in (TRACES / folder).rglob("*.*") if p.is_file())))
    text = source.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 200)))
    instead = data.draw(
        st.sampled_from(["", "null", "-1", '"x"', "[]", "{}", "1e999", "NaN", "\n", ",", "\0"])
    )
    file = tmp_path_factory.getbasetemp() / f"damaged{source.suffix}"
    file.write_text(text[:start] + instead + text[end:])
    try:
        found = read_trace(file)
    except TraceError as error:
        assert "\n" not in str(error)
        return
    json.dumps(found.to_json(), allow_nan=False)
    assert repr(found) and found.gaps() is not None


@pytest.mark.parametrize("count", ["1e999", "-1", "true", '"2"', "2.5", "null"])
def test_a_record_with_an_impossible_count_is_refused(tmp_path, count):
    row = '{"kind": "launch", "operator": "aten::mm", "site": "", "bytes": 0, "count": %s}'
    (tmp_path / "simulator_record.json").write_text(f'{{"rows": [{row % count}]}}')
    with pytest.raises(TraceError):
        read_trace(tmp_path)


def test_an_id_that_is_a_list_is_an_id(tmp_path):
    text = (TRACES / "cpu" / "torch_trace.json").read_text().replace('"tid": 1', '"tid": []')
    (tmp_path / "torch_trace.json").write_text(text)
    assert read_trace(tmp_path).count == 3
    text = (
        (TRACES / "cuda" / "worker.pt.trace.json")
        .read_text()
        .replace('"External id": 7', '"External id": []')
    )
    (tmp_path / "torch_trace.json").write_text(text)
    assert read_trace(tmp_path).kernels[0].operator == "aten::mm"


def test_a_step_without_length_has_no_share(tmp_path):
    text = (OUT / "step_trace_time.csv").read_text().replace("6000.0", "0")
    (tmp_path / "step_trace_time.csv").write_text(text)
    found = read_trace(tmp_path).to_json()
    assert (
        json.dumps(found) and found["steps"][0]["stage_us"] == 0 and found["steps"][0]["idle_share"] is None
    )


# ---------------------------------------------------------------------- small parts
@pytest.mark.parametrize("cell", ["AI_CPU", "AICPU", "AI CPU", "ai_cpu"])
def test_the_ai_cpu_has_one_name(cell):
    assert core_of(cell) == "AI_CPU"


@pytest.mark.parametrize(
    ("cell", "shapes"),
    [
        ("[2,4096]", [[2, 4096]]),
        ("1024,2048;1024,2048", [[1024, 2048], [1024, 2048]]),
        ("", []),
        ("2;4096", [[2], [4096]]),
    ],
)
def test_spellings_of_shapes(cell, shapes):
    assert shapes_of(cell) == shapes


def test_bytes_of_a_kernel():
    rows = {row.text("type"): row for row in rows_of(_level1(), "k", [])}
    assert bytes_of(rows["Add"]) == 3 * 1024 * 2048 * 2
    assert bytes_of(rows["LaserAttention"]) == 2 * 2 * 4096 * 2
    assert bytes_of(rows["Cast"]) == 2 * 4096 * (2 + 4)  # 2;4096 with one dtype is one tensor


def _level1() -> str:
    return next((TRACES / "level1").rglob("*.csv")).read_text()


# ---------------------------------------------------------------------- two traces
def test_two_traces_are_compared_type_by_type():
    found = compare_traces(read_trace(OUT / "op_statistic.csv"), read_trace(TRACES / "msprof"))
    rows = {row["type"]: row for row in found.to_json()["difference"]["by_type"]}
    assert rows["MatMulV2"]["us"] == -30.0 and rows["ArgSort"]["count_a"] == 0
    assert found.to_json()["difference"]["device_us"] == pytest.approx(935.0 - 5180.25)
    assert next(iter(rows)) == "MaskedScatter"  # the largest difference first
    assert "MaskedScatter" in repr(found)
