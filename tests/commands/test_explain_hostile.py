"""`deskocr explain` on hostile input: bounded time, no exception, one line for what is no log."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.ascend import codes, errors, log_text
from deskocr_kit.ascend.errors import explain, hints, is_fatal
from tests.helpers.paths import ROOT

SECONDS = 10  # of processor time, for 10 MB
EXAMPLES = [row["example"] for row in errors.rows()]


def command(*args: str, **options) -> subprocess.CompletedProcess:
    code = "import typer; from deskocr_kit.commands.explain import explain; typer.run(explain)"
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, timeout=120, cwd=ROOT, **options
    )


PARTS = {
    "torch_npu": "torch_npu", "torch_npu with blanks": "torch_npu a.so ", "blank lines": "\n",
    "unfinished titles": "\x1b]", "entities": "&#1", "digits": "1", "codes": "error code is 507035 ",
    "prefixes": "ERROR: ", "hexadecimal": "0x7bc8a ", "processes": "(a pid=1",
    "undefined symbols": "undefined symbol: ",
}  # fmt: skip
QUICK = ("torch_npu", "unfinished titles")


@pytest.mark.parametrize(
    "name",
    # The others take half a minute together and differ little.
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PARTS],
)
def test_ten_megabytes_take_seconds(name):
    text = PARTS[name] * (10_000_000 // len(PARTS[name]))
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    explain(text)
    assert time.process_time() - started < SECONDS
    is_fatal(text)
    assert (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10
    )  # kB; the peak of the process


@pytest.mark.parametrize("size", [2_000, 8_000, 64_000])
def test_the_reported_lines_take_no_time(size):
    started = time.process_time()
    explain("torch_npu" * (size // 9))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "wrapped",
    [
        "\x1b]0;title\x1b\\{}",
        "\x1b]8;;https://x.example/{}\x1b\\link\x1b]8;;\x1b\\ {}",
        "\x1b]0;unfinished {}",
        "\x1b[1;31m{}\x1b[0m",
        "\x1bP1$r{}",
        "\x1b(B{}\x1b=",
        "\x1b[{}",
    ],
)
def test_escape_sequences_do_not_swallow_the_error(wrapped):
    text = wrapped.replace("{}", "RuntimeError: NPU out of memory. Tried to allocate 2 GiB")
    assert [match.id for match in explain(text)][:1] == ["oom"]


def test_an_error_in_the_middle_of_one_endless_line_is_found():
    noise = "abc defg " * 200_000
    text = noise + " RuntimeError: NPU out of memory. Tried to allocate 2 GiB " + noise
    assert [match.id for match in explain(text)] == ["oom"]


@pytest.mark.parametrize(
    "digits", ["&#" + "9" * 5000, "&#x" + "f" * 5000 + ";", "error code is " + "5" * 5000]
)
def test_thousands_of_digits(digits):
    assert explain(digits) == [] and hints(digits) == [] and is_fatal(digits) is False


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
def test_what_is_no_log_is_refused_in_one_line(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with open("/dev/zero", "rb") as zero:
        for child in (command(str(tmp_path / "fifo")), command("/dev/zero"), command("-", stdin=zero)):
            assert child.returncode == 2 and child.stderr.count(b"\n") == 1, child.stderr
            assert child.stderr.startswith(b"deskocr explain: ") and not child.stdout


def test_nothing_from_a_log_controls_the_terminal(tmp_path):
    log = tmp_path / "a\x1b[2J.log"
    log.write_text("RuntimeError: NPU out of memory\u202e\x07 undefined symbol: aclX\x9b31m\n", "utf-8")
    for child in (command(str(log)), command("--json", str(log)), command(str(log) + "gone.log")):
        assert b"Traceback" not in child.stderr
        assert not any(c in child.stdout.decode() + child.stderr.decode() for c in "\x1b\x07\x9b\u202e")


def test_of_a_huge_log_the_ends_are_searched_and_that_is_said(tmp_path):
    log = tmp_path / "huge.log"
    with log.open("wb") as file:
        file.truncate(80 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\nRuntimeError: NPU out of memory. Tried to allocate 2 GiB\n")
    child = command(str(log))
    assert child.returncode == 0 and child.stdout.startswith(b"[oom]") and b"are searched" in child.stderr


def test_a_file_that_was_read_is_not_called_missing(tmp_path):
    log = tmp_path / "unknown.log"
    log.write_text("all is well\n")
    child = command(str(log))
    assert child.returncode == 1 and b"does not exist" not in child.stdout


PIECES = [
    *PARTS.values(),
    *EXAMPLES,
    "\n",
    "\x1b[",
    "\x1b\\",
    "&#",
    "│ ",
    "2025-11-23 10:00:00 ERROR ",
    "E30006: ",
    "0x",
]
texts = st.one_of(st.text(max_size=400), st.lists(st.sampled_from(PIECES), max_size=12).map("".join))


@pytest.mark.fuzz
@given(texts)
def test_any_text_is_explained_or_not(text):
    for match in explain(text):
        assert match.cause and match.remedy and len(match.found) <= errors.FOUND
        assert match.found.isprintable()
    hints(text)
    assert is_fatal(text) in (True, False)


@pytest.mark.fuzz
@given(st.sampled_from(EXAMPLES), st.text(max_size=60), st.text(max_size=60))
def test_a_known_error_stays_known_between_other_lines(example, before, after):
    noise = (f"{before}\n", f"\n{after}")
    known = {match.id for match in explain(example)}
    assert known & {match.id for match in explain(noise[0] + example + noise[1])}


@pytest.mark.fuzz
@given(texts)
def test_the_parts_of_the_search_never_raise(text):
    log_text.condensed(text * 3)
    codes.cann_codes(text)
    codes.acl_codes(text, True)
    codes.meanings(text)
