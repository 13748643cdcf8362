"""`deskocr explain`: each row matches its own example, also wrapped or coloured, and nothing else."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import textwrap
import time

import pytest

from deskocr_kit.ascend import errors, log_text
from deskocr_kit.ascend.errors import explain, explain_exception, hints
from tests.helpers.paths import ROOT

ROWS = {row["id"]: row for row in errors.rows()}


def ids(text: str) -> list[str]:
    return [match.id for match in explain(text)]


def cut(text: str, width: int) -> list[str]:
    return [text[i : i + width] for i in range(0, len(text), width)]


SPOILT = {
    "plain": lambda t: t,
    "wrapped": lambda t: "\n".join(textwrap.wrap(t, 60)),
    "indented": lambda t: "\n".join("    " + line for line in textwrap.wrap(t, 50)),
    "cut at 40": lambda t: "\n".join(cut(t, 40)),
    "cut at 23": lambda t: "\n".join(cut(t, 23)),
    "colours": lambda t: "\x1b[1;31m" + t.replace(" ", "\x1b[0m \x1b[33m") + "\x1b[0m",
    "log prefix": lambda t: "\n".join(
        f"(Worker pid=12) ERROR 11-23 [core.py:12] {x}" for x in textwrap.wrap(t, 70)
    ),
    "time stamps": lambda t: "\n".join(
        f"2025-11-23 10:00:0{len(x) % 10},123 ERROR {x}" for x in textwrap.wrap(t, 70)
    ),
    "rich frame": lambda t: "\n".join(f"│ {x:<60} │" for x in textwrap.wrap(t, 60)),
    "rich frame, cut": lambda t: "\n".join(f"│ {x:<30} │" for x in cut(t, 30)),
    "json": lambda t: json.dumps({"error": t}),
    "web page": html.escape,
    "full-width": lambda t: t.translate(str.maketrans(":(),", "：（），")),
    "windows": lambda t: "\r\n".join(t.splitlines()) + "\r\n",
    "after a long traceback": lambda t: (
        "".join(f'  File "/a/b{i}.py", line {i}\n    x = f({i})\n' for i in range(300)) + t
    ),
}


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("row", ROWS)
def test_each_row_finds_its_example_first(row, spoil):
    assert ids(SPOILT[spoil](ROWS[row]["example"]))[0] == row


def test_examples_meet_no_foreign_row():
    overlap = {row: ids(ROWS[row]["example"])[1:] for row in ROWS}
    assert {row: others for row, others in overlap.items() if others} == {
        "oom_1eb": ["oom"],  # the same message with one more detail
    }


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (
            "ImportError: libge_runner.so: cannot open shared object file: No such file or directory",
            "libhccl",
        ),
        (
            "OSError: libascend_hal.so.1: cannot open shared object file: No such file or directory",
            "libascend_hal",
        ),
        ("AttributeError: 'DeepseekOCRForCausalLM' object has no attribute 'npu'", "no_npu_attr"),
        (
            "ImportError: /opt/x/torch_npu/lib/libtorch_npu.so: undefined symbol: _ZN3c1011SymInt5guard",
            "abi_torch",
        ),
        ("RuntimeError: The path does not exist: /usr/local/Ascend/ascend-toolkit/latest", "home_path"),
        (
            "Exception: ASCEND_HOME_PATH : /opt/cann does not exist. Please run 'source set_env.sh'",
            "home_path",
        ),
        (
            "[ERROR] RUNTIME(12,python):... rtStreamSynchronize failed, retCode=0x7bc8a, [aicpu exception].",
            "507018",
        ),
        ("npu error: acl result = 507015", "507015"),
        ("NPU function error: aclrtSynchronizeStream, error code is 507046", "507014_35"),
        ("507899 507008 error code is 507008", "507008"),
        ("set ASCEND_RT_VISIBLE_DEVICES:[0,7] error, input data range[0-2)", "rt_visible_range"),
        (
            "aclnnSort or aclnnSortGetWorkspaceSize not in libopapi.so, or libopapi.sonot found.",
            "opapi_missing",
        ),
        (
            "torch.OutOfMemoryError: NPU out of memory. Tried to allocate 20.00 MiB (NPU 3; 29.50 GiB total",
            "oom",
        ),
        (
            "EZ9999[PID: 9] 2026-01-01-00:00:00 (EZ9999):  Cannot find bin of op Sort, integral key 0.",
            "kernel_pkg",
        ),
        ("ERROR: torch-npu 2.9.0 depends on torch==2.9.0+cpu", "pip_conflict"),
        (
            "Expected all tensors to be on the same device, but found at least two devices, npu:0 and cpu!",
            "same_device",
        ),
        (
            "NotImplementedError: Could not run 'aten::convolution' with arguments from the 'npu' backend.",
            "no_kernel",
        ),
        ("Device 3: EL0005 The resources are busy. [ERROR] device 3 npu", "el0005"),
        ("ModuleNotFoundError: No module named 'tbe'", "tbe_missing"),
    ],
)
def test_other_numbers_paths_and_names(text, first):
    assert ids(text)[0] == first


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: invalid literal for int() with base 10: 'abc'",
        "KeyError: 'npu'",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "ModuleNotFoundError: No module named 'numpy'",
        "ModuleNotFoundError: No module named 'tbenchmark'",
        "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
        "AssertionError: Invalid device id",
        "RuntimeError: CUDA error: invalid device ordinal",
        "remote: You have no permission to push to this repository",
        "FileNotFoundError: The path does not exist: data/foo.csv",
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "AttributeError: 'Namespace' object has no attribute 'npu'",
        "AttributeError: 'NoneType' object has no attribute 'shape'",
        "saved 507018 rows in 107002 ms",
        "HTTP error 507015",
        "PID 107001 killed",
        "undefined symbol: PyUnicode_AsUTF8",
        "NotImplementedError: Could not run 'aten::add' with arguments from the 'CUDA' backend.",
        "The resources are busy, try again later",
        "torchvision 0.21 depends on torch==2.6.0",
        "OSError: [Errno 28] No space left on device",
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "Error 404: context is empty",
        "ZeroDivisionError: division by zero",
        "",
    ],
)
def test_unrelated_errors_are_not_known(text):
    assert ids(text) == []


def test_a_chained_traceback_names_the_cause_before_its_wrapper():
    text = (
        "Traceback (most recent call last):\n"
        "ImportError: libhccl.so: cannot open shared object file: No such file or directory\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "Traceback (most recent call last):\n"
        "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension "
        "auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.\n"
    )
    assert ids(text) == ["libhccl", "autoload_fail"]


def test_an_aclnn_failure_names_its_reason_before_itself():
    text = (
        "RuntimeError: NPU function error: call aclnnFlashAttentionScore failed, error code is 561103\n"
        "[ERROR] 2025-01-15-20:59:48 (PID:6038, Device:0, RankID:-1) ERR00100 PTA call acl api failed\n"
        "EZ9999: get unsupported atten_mask shape, the shape is [1, 1, 1, 64]."
    )
    assert ids(text) == ["atten_mask_shape", "aclnn_call_failed"]


def test_a_bare_code_is_marked_as_uncertain():
    (match,) = explain("EH9999: Inner Error!")
    assert (match.id, match.certain) == ("eh9999_env", False)
    assert explain(ROWS["eh9999_env"]["example"])[0].certain


def test_unknown_codes_are_read_by_their_grammar_only():
    text = "EZ9999: Inner Error! NPU function error, error code is 507777 ERR00100 PTA call acl api failed"
    assert explain(text) == []
    told = " ".join(hints(text))
    assert "operators" in told and "runtime on the device" in told and "call to acl failed" in told
    assert "507899: an acl return code for an internal error in the driver module" in hints(
        "error code is 507899"
    )
    assert hints("ValueError: nothing here") == []


def test_explain_exception_walks_the_chain():
    try:
        try:
            raise ImportError("libhccl.so: cannot open shared object file: No such file or directory")
        except ImportError as error:
            raise RuntimeError("Failed to load the backend extension: torch_npu.") from error
    except RuntimeError as error:
        told = explain_exception(error)
    assert told.startswith("RuntimeError: Failed to load the backend extension")
    assert told.index("[libhccl]") < told.index("[autoload_fail]")
    assert "set_env.sh" in told
    assert explain_exception(ValueError("plain\nsecond line")) == "ValueError: plain"
    assert explain_exception(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_log_of_megabytes_is_searched_in_seconds():
    noise = "\n".join(f"2025-11-23 10:00:00 INFO step {i} loss 0.{i}" for i in range(60_000))
    started = time.monotonic()
    assert ids(noise + "\n" + ROWS["kernel_pkg"]["example"] + "\n" + noise[:1000]) == ["kernel_pkg"]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("row", ROWS)
def test_a_fault_in_the_middle_of_a_long_log_is_found(row, monkeypatch):
    """Beyond LIMIT only the ends of a log and lines that look faulty are searched, those of every row."""
    monkeypatch.setattr(log_text, "LIMIT", 8_000)
    noise = "\n".join(f"2025-11-23 10:00:00 INFO step {i} loss 0.{i}" for i in range(300))
    assert ids(noise + "\n" + ROWS[row]["example"] + "\n" + noise)[:1] == [row]


def test_of_a_long_log_of_failures_little_is_kept():
    line = "2025-11-23 10:00:00 ERROR step {} failed to read /data/{}.png"
    log = "\n".join(line.format(i, i) for i in range(40_000)) + "\n"
    log = log + ROWS["el0004"]["example"] + "\n" + log
    assert len(log_text.condensed(log)) <= log_text.LIMIT + 2100
    assert "el0004" in ids(log)


def test_the_table_is_complete_and_self_contained():
    assert len(ROWS) == len(errors.rows())
    for row in errors.rows():
        assert row["cause"] and row["remedy"] and row["source"] and row["status"] in ("observed", "reported")
        assert {"pattern", "weak", "codes"} & set(row), row["id"]
        for vague in ("as above", "same as", "as said", "section "):
            assert vague not in row["cause"] + row["remedy"], row["id"]


# ---- the command ----


def command(*args: str, stdin: str | None = None) -> subprocess.CompletedProcess:
    code = "import typer; from deskocr_kit.commands.explain import explain; typer.run(explain)"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
    )


def test_command_reads_words_file_and_pipe(tmp_path):
    text = "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB"
    log = tmp_path / "log.txt"
    log.write_bytes(b"\xff\xfe noise\n" + text.encode())
    for child in (
        command(text),
        command(*text.split()),
        command(str(log)),
        command(stdin=text),
        command("-", stdin=text),
    ):
        assert child.returncode == 0, child.stderr
        assert (
            child.stdout.startswith("[oom]")
            and "remedy:" in child.stdout
            and "expandable_segments" in child.stdout
        )


def test_command_says_not_known_with_its_own_exit_status():
    child = command("ZeroDivisionError: division by zero")
    assert child.returncode == 1 and child.stdout.startswith("No entry in the table of Ascend errors matches")
    child = command("--json", "error code is 507777")
    answer = json.loads(child.stdout)
    assert child.returncode == 1 and answer["known"] is False and answer["hints"]


def test_command_without_a_text():
    child = command(stdin="   ")
    assert child.returncode == 2 and "empty" in child.stderr
    child = command(str(ROOT))
    assert child.returncode == 2 and "is a folder" in child.stderr
    assert command("--most", "0", "NPU out of memory").returncode == 2


def test_a_log_file_that_is_not_there_is_said():
    child = command("nowhere/train.log")
    assert child.returncode == 1 and "the file nowhere/train.log does not exist" in child.stdout


def test_command_as_json():
    answer = json.loads(
        command("--json", "NPU out of memory. Tried to allocate more than 1EB memory.").stdout
    )
    assert [match["id"] for match in answer["matches"]] == ["oom_1eb", "oom"]
    assert set(answer["matches"][0]) == {
        "id",
        "cause",
        "remedy",
        "source",
        "status",
        "found",
        "certain",
        "fatal",
    }


def test_the_text_of_a_match_marks_doubt_and_a_lost_device():
    """One line per fact: the row and what matched, whether only a code matched, cause, remedy, restart."""
    (match, *_) = explain("error code 507018")
    lines = str(match).splitlines()
    assert lines[0] == "[507018] code 507018"
    assert lines[1] == "  note:   only a code or a common phrase matches; compare with your case"
    assert lines[-1].startswith("  fatal:") and match.fatal
    sure = next(match for row in ROWS for match in explain(ROWS[row]["example"]) if match.certain)
    assert "note:" not in str(sure) and ("fatal:" in str(sure)) is sure.fatal
    for row in ROWS:
        for match in explain(ROWS[row]["example"]):
            assert ("\n  fatal:  " in str(match)) is match.fatal
