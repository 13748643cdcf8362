"""`deskocr explain` by classes: the public reports in tests/data/faults/explain, siblings, all codes."""

from __future__ import annotations

import re

import pytest

from deskocr_kit.ascend import codes
from deskocr_kit.ascend.errors import explain, hints, is_fatal, rows
from tests.helpers.paths import ROOT

FAULTS = ROOT / "tests" / "data" / "faults" / "explain"


def first(text: str):
    return explain(text)[0]


@pytest.mark.parametrize(
    ("file", "row", "words", "fatal"),
    [
        ("op_without_binary", "kernel_pkg", "kernels (operator) package", False),
        ("binary_info_config", "kernel_pkg", "another version or chip", False),
        ("bf16_not_implemented", "bf16_refused", "--dtype fp16", False),
        ("device_start_507033", "device_start", "TSD", True),
        ("aivec_exception", "device_exception", "vector core", True),
        ("python_error_then_err99999", "python_exception", "traceback above", False),
    ],
)
def test_reported_texts(file, row, words, fatal):
    text = (FAULTS / f"{file}.txt").read_text("utf-8")
    match = first(text)
    assert (match.id, match.fatal, is_fatal(text)) == (row, fatal, fatal)
    assert words in match.cause + match.remedy


def test_err99999_shows_the_exception_above_it():
    text = (FAULTS / "python_error_then_err99999.txt").read_text("utf-8")
    assert "No module named 'addict'" in first(text).found
    known = "RuntimeError: NPU out of memory. Tried to allocate 2 GiB\nERR99999 UNKNOWN application exception"
    assert [match.id for match in explain(known)] == ["oom"]  # a code that says nothing, beside a cause


@pytest.mark.parametrize(
    ("text", "row"),
    [
        # a missing kernels package has many wordings
        ("EZ9999: 2025-04-02-00:54:30.240.432  Parse dynamic kernel config fail.", "kernel_pkg"),
        ("EZ9999: Op Add does not has any binary.", "kernel_pkg"),
        ("EZ1001: cannot open binary_info_config.json", "kernel_pkg"),
        ("aclnnStatus: ACLNN_ERR_INNER_OPP_KERNEL_PKG_NOT_FOUND", "kernel_pkg"),
        ("NPU function error: call aclnnAdd failed, error code is 561112", "kernel_pkg"),
        # a refused dtype, in the words of aclnn and of the older compiler
        ("EZ1001: The dtype not implemented for DT_BFLOAT16, should be in dtype support", "bf16_refused"),
        ("E90003: Compile operator failed, cause: Template constraint, detailed information: bfloat16 of "
         "tbe.dsl.transdata is not supported.", "bf16_refused"),
        ("EZ1001: not implemented for DT_INT64, should be in dtype support list [DT]", "dtype_refused"),
        ("In op[Conv2D], E50034: the type of x should be in [float16], actual is [int64]", "code_dtype"),
        # starting the device
        ("Inner_Error_Device_Status_Abnormal(E39009): Failed to connect the device. devId=2", "device_start"),
        ("TsdOpen failed. devId=2, tdt error=34[FUNC:PrintfTsdError][FILE:runtime.cc]", "device_start"),
        ("aclrtSetDevice(deviceId) failed: 507033 (npu main.cpp:110)", "device_start"),
        ("E39007: Starting a subprocess on the device timed out.", "device_start"),
        # exceptions on a core
        ("there is an exception of aivec error, core id is 14, error code = 0x40000000", "device_exception"),
        ("fftsplus task execute failed, npu: fftsplus aicore error, core id is 3", "device_exception"),
        ("The write address of the MTE instruction is out of range", "device_exception"),
        ("errorStr: VEC instruction error: the ub address out of bounds.", "device_exception"),
        ("[ERROR] aclrtSynchronizeStream(stream) failed: 507035 (/x/main.cpp:92)", "device_exception"),
        ("there is an aicore error exception, core id is 0", "device_exception"),
        # a time-out is no wrong parameter
        ("rtDeviceSynchronize execute failed, reason=[task timeout] runtime result = 107020.", "acl_timeout"),
        ("EE1002: Stream synchronize timeout.", "507014_35"),
        # torch_npu's words after a lost device
        ("RuntimeError: UCE ERROR. npu", "device_memory_fault"),
        ("The process exits for this inner error, and the current working operator name is A", "queue_exit"),
        # answers to codes that were explained by their class only
        ("RuntimeError: create: NPU function error: aclInit, error code is 500000", "500000"),
        ("[ERROR] (PID:1, Device:0, RankID:0) ERR02200 DIST call hccl api failed.", "err02200"),
        ("EI0007: Failed to allocate resource[Notify] with info [x]. Reason: exhausted.", "ei0007"),
        ("EJ0001: Failed to initialize the HCCP process. ERR02200 DIST call hccl api failed", "ej0001"),
    ],
)  # fmt: skip
def test_siblings(text, row):
    assert first(text).id == row


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: \"addmm_impl_cpu_\" not implemented for 'BFloat16'",
        "RuntimeError: CUDA error: bf16 is not supported on this GPU",
        "kernel config not found: /boot/config-6.1",
        "RuntimeError: FORCE STOPPED by the user",
        "Part number E30006-12 is sold out; see E40021A",
        "an error exception of the scheduler",
    ],
)
def test_other_software_says_such_things_too(text):
    assert explain(text) == []


def test_the_component_is_named_by_the_first_two_characters():
    assert codes.component("E30006") == "the task daemon (TSD) that starts the device"
    assert "compiler" in codes.component("E90003") and "HCCL" in codes.component("EI0007")
    assert "graph engine" in codes.component("E10001")
    assert "TSD" in hints("E30099: x")[0]  # a code without a title
    assert codes.component("EQ0001") is None and "not known here" in hints("EQ0001: x")[0]
    missing = {code[:2] for code in codes.tables()["titles"]} - set(codes.tables()["components"])
    assert missing == set()


def test_each_code_belongs_to_one_family():
    table = codes.tables()
    for title in table["titles"].values():
        assert any(re.search(family["titles"], title) for family in table["families"]), title
    listed = [code for family in table["acl_families"] for code in family["codes"]]
    assert sorted(listed) == sorted(map(int, table["acl"])) and len(set(listed)) == len(listed)
    for family in (*table["families"], *table["acl_families"]):
        assert family["cause"] and family["remedy"]


@pytest.mark.parametrize("code", [str(code) for code in codes.tables()["acl"]])
def test_each_return_code_has_an_answer(code):
    match = first(f"NPU function error: aclrtX, error code is {code}")
    assert match.cause and match.remedy and not match.certain


def test_each_cann_code_has_an_answer():
    for code in codes.tables()["titles"]:
        assert explain(f"{code}: [PID: 1] npu") or code.endswith("9999"), code


FATAL = {507015, 507018, 507033, 507035, 507042, 507046, 507053, 507054, 507899, 107022}
NOT_FATAL = {107001, 107002, 107019, 161002, 207001, 207006, 561103, 561112, 500000, 100026}


def test_fatal_codes_are_those_that_lose_the_device():
    for code in FATAL | NOT_FATAL:
        assert is_fatal(f"NPU function error: aclrtX, error code is {code}") is (code in FATAL), code
    assert is_fatal(RuntimeError("NPU function error: aclrtSynchronizeStream, error code is 507035"))
    assert not is_fatal(RuntimeError("NPU out of memory. Tried to allocate 2 GiB"))
    assert not is_fatal(ValueError("507035 pages")) and not is_fatal("")
    # fatal beside a message that is listed first
    assert is_fatal("EZ1001: self not implemented for DT_BFLOAT16 ... error code is 507035")


def test_a_row_and_the_family_of_its_code_agree_on_fatal():
    families = {code: family for family in codes.tables()["acl_families"] for code in family["codes"]}
    for row in rows():
        for code in row.get("codes", ()):
            if isinstance(code, int):
                assert bool(row.get("fatal")) == bool(families[code].get("fatal")), (row["id"], code)
