"""Captured files of any content: a report in bounded time and memory, and no exception."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.ascend import versions
from deskocr_kit.doctor import captured_lists, facts, npu_smi
from deskocr_kit.doctor.capture import FILES, LIMIT, Capture, _note_what_says_nothing
from deskocr_kit.doctor.examination import examine_files, judge
from deskocr_kit.doctor.main import run
from deskocr_kit.doctor.report import Report
from tests.helpers.doctor_cases import GOOD
from tests.helpers.paths import ASCEND
from tests.helpers.remedies import good

SECONDS, MEBIBYTES = 10, 512  # of processor time and of memory, for files of 10 MB and more

PARTS = {
    "blank lines": "\n", "blanks": " ", "bars": "|", "digits": "1", "equals": "a=", "colons": "a : ",
    "pages": "NPU ID : 0\n\nHBM Capacity(MB) : 1\nChip ID : 1\n", "mapping": "0 0 0 Ascend910\n0 1 - Mcu\n",
    "table": "| 0 910B3 | OK | 1 2 3/4 |\n| 0 | 0000:C1:00.0 | 0 0 / 0 1/2 |\n",
    "processes": "| NPU Chip | Process id | Process name | Process memory(MB) |\n| 0 0 | 1 | a | 2 |\n",
    "process lines": "Process id : 1 Process name : a", "packages": "torch==1\n", "wheels": "a @ x-1.0.whl\n",
    "brackets": "[", "objects": "[{", "environment": "A=1\nB\n", "exports": "export A\n",
    "unfinished title": "\x1b]", "colours": "\x1b[1", "zeros": "\0", "words": "x y\n",
}  # fmt: skip


def examined(texts: dict[str, str]) -> Report:
    capture = Capture("files", dict(texts))
    _note_what_says_nothing(capture)
    found = facts.collect(capture)
    return Report(judge(capture, found), None, "files", found, capture)


QUICK = ("blanks", "table", "words")


@pytest.mark.parametrize(
    "name",
    # The others take half a minute together and differ little.
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PARTS],
)
def test_long_files_take_bounded_time_and_memory(tmp_path, name):
    part = PARTS[name]
    text = part * (10_000_000 // len(part.encode()) + 1)
    for file in ("npu-smi.txt", "env.txt", "pip-list.txt", "version.cfg"):
        (tmp_path / file).write_text(text, "utf-8")
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = examine_files(tmp_path)
    lines = report.text().splitlines()
    assert time.process_time() - started < SECONDS
    # The peak of this process, in kB: what other tests took before is no growth.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEBIBYTES << 10
    assert len(lines) < 400 and max(map(len, lines)) < 2100
    cut = [row for row in report.rows if row.group == "Files"]
    assert len(cut) == 4 and all(row.status == "WARN" for row in cut)  # cut, or not understood


def test_what_was_cut_is_said(tmp_path):
    (tmp_path / "pip-list.txt").write_text("torch==2.6.0\n" + ("#" * 200 + "\n") * (LIMIT // 200))
    (row,) = (row for row in examine_files(tmp_path).rows if row.group == "Files")
    assert f"only its first {LIMIT:,} bytes" in row.seen and "pip list" in row.remedy


@pytest.mark.skipif(os.name != "posix", reason="FIFOs and devices")
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_what_is_no_file_is_refused_in_one_line(tmp_path, kind, capsys):
    (tmp_path / "env.txt").write_text(GOOD["env.txt"])
    odd = tmp_path / "npu-smi.txt"
    {"fifo": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": os.mkdir}[kind](odd)
    rows = {row.name: row for row in examine_files(tmp_path).rows}
    assert rows["npu-smi.txt"].status == "WARN" and "not a regular file" in rows["npu-smi.txt"].seen
    alone = str(odd) if kind != "folder" else "/dev/zero"
    assert run(source=alone) == 2
    assert capsys.readouterr().err.count("\n") == 1


def bundle_of(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            bundle.writestr(name.replace("__", "."), content)
    return out.getvalue()


def test_bundles_that_strangers_made(tmp_path, capsys):
    whole = bundle_of(env__txt=GOOD["env.txt"].encode(), version__cfg=b"8.3.RC1")
    damaged = [
        whole[:40],
        whole[:-30],
        whole.replace(b"env.txt", b"../x.tx"),
        b"PK\x03\x04" * 50,
        b"",
        b"\0" * 2000,
    ]
    damaged += [whole[:at] + b"\xff" + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for content in damaged:
        (tmp_path / "b.zip").write_bytes(content)
        assert run(source=str(tmp_path / "b.zip")) in (0, 1, 2)
    capsys.readouterr()
    bomb = bundle_of(env__txt=b"A=1\n" * 20_000_000)  # 80 MB in 80 kB
    (tmp_path / "b.zip").write_bytes(bomb)
    started = time.process_time()
    assert run(source=str(tmp_path / "b.zip")) == 0
    assert time.process_time() - started < SECONDS and "only its first" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '[{"name":' * 50_000,
        '[{"name": "torch", "version": ' + "9" * 100_000,
        "[[]]",
        "[1]",
        '[{"name": 5}]',
        '[{"name": null, "version": {}}]',
    ],
    ids=str.__len__,
)
def test_nested_and_odd_package_lists(text):
    assert captured_lists.parse_pip(text) == {}
    assert captured_lists.parse_pip('[{"name": "torch", "version": "2.6.0"}]') == {"torch": "2.6.0"}


def test_numbers_of_thousands_of_digits():
    many = "9" * 5000
    smi = f"| {many} 910B3 | OK | {many} |\n| {many} | 0000:C1:00.0 | {many} {many} / {many} |\n"
    page = f"NPU ID : {many}\nChip ID : {many}\nHBM Capacity(MB) : {many}\nTotal Count : {many}\n"
    for text in (smi, page, f"NPU ID  Chip ID  Chip Logic ID\n{many} {many} {many}\n"):
        npu_smi.parse(text)
    texts = {
        "version.cfg": f"{many}.{many}",
        "env.txt": f"ASCEND_RT_VISIBLE_DEVICES={many}",
        "npu-smi.txt": smi,
        "driver_version.info": f"Version={many}.1",
        "firmware_version.info": f"Version=1.{many}.2",
    }
    examined(texts)


def test_nothing_in_a_report_controls_the_terminal(tmp_path):
    evil = "\x1b]0;title\x07\x1b[2J\u202e\x9b31m"
    (tmp_path / "version.cfg").write_text(f"toolkit_running_version=[1:8.3.RC1{evil}]\n", "utf-8")
    (tmp_path / "env.txt").write_text(f"TASK_QUEUE_ENABLE=2{evil}\nASCEND_HOME_PATH=/x{evil}\n", "utf-8")
    (tmp_path / "npu-smi.txt").write_text(f"error: {evil} failed\n", "utf-8")
    report = examine_files(tmp_path)
    for text in (report.text(), report.json()):
        assert not any(c in text for c in "\x1b\x07\x9b\u202e")


# ---- generated input ----

PIECES = sorted(
    {
        *PARTS.values(),
        "torch==2.6.0\n",
        "Version=25.5.1\n",
        "export A=1\n",
        '[{"name": "torch"}]',
        "-",
        "é",
        "\x85",
    }
)
text = st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=30).map("".join))


@pytest.mark.fuzz
@given(st.dictionaries(st.sampled_from(FILES), text, min_size=1))
def test_any_captured_texts_give_a_report(texts):
    report = examined(texts)
    assert report.verdict and report.text() and report.json()
    assert all(row.remedy for row in report.rows if row.status == "FAIL")


SAMPLES = [path.read_text("utf-8") for path in sorted(ASCEND.glob("*/*"))] + [good(name) for name in GOOD]


@st.composite
def damaged(draw):
    """A real printout with parts cut out, doubled or replaced."""
    content = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 80))
        content = content[:start] + draw(text) + content[start + length :]
    return content


@pytest.mark.fuzz
@given(damaged())
def test_damaged_printouts_are_parsed(content):
    smi = npu_smi.parse(content)
    assert all(chip.id is None or chip.id >= 0 for chip in smi.chips)
    captured_lists.parse_env(content)
    captured_lists.parse_pip(content)
    for parser in (
        versions.parse_toolkit,
        versions.parse_version_cfg,
        versions.parse_driver,
        versions.parse_firmware,
    ):
        parser(content)
    for name in FILES:
        captured_lists.misunderstood(name, content)


@pytest.mark.fuzz
@given(
    st.text(alphabet="0123456789.rcRCTpost+-ab", max_size=60), st.text(alphabet="0123456789.rc", max_size=30)
)
def test_any_version_can_be_compared(one, two):
    assert (versions.key(one) < versions.key(two)) is not (versions.key(one) >= versions.key(two))
    versions.documented(one, two)
    versions.builds_for(two, one)
    versions.driver_fits({"version": one}, {"version": two})


@pytest.mark.fuzz
@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_][A-Z0-9_]{0,9}", fullmatch=True), st.text(max_size=40).filter(str.isprintable)
    )
)
def test_an_environment_is_read_as_it_was_written(values):
    values = {name: value.strip().replace("\\", "/") for name, value in values.items()}
    plain = {name: value for name, value in values.items() if value[:1] not in ("'", '"')}
    written = "".join(f"{name}={value}\n" for name, value in plain.items())
    assert captured_lists.parse_env(written) == plain


@pytest.mark.fuzz
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True),
        st.from_regex(r"\d{1,3}\.\d{1,3}", fullmatch=True),
    )
)
def test_a_package_list_is_read_in_every_form(packages):
    forms = ["{}=={}", "[pip3] {}=={}", "[conda] {} {} pypi_0 pypi", "'{}=={}',", "- {}={}", "7. {}=={}"]
    forms += ["{} ({})", "| {} | {} |"]
    for form in forms:
        lines = "".join(form.format(name, version) + "\n" for name, version in packages.items())
        assert captured_lists.parse_pip(lines) == packages, form


def test_the_command_has_no_traceback(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(bytes(range(256)) * 20)
    command = [sys.executable, "-m", "deskocr_kit.doctor", "--from", str(tmp_path)]
    command += ["--bundle", str(tmp_path / "b.zip")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert child.returncode in (0, 1) and "Traceback" not in child.stderr
    assert "not understood" in child.stdout
