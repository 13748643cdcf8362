"""`deskocr doctor` on captured files: its verdicts, its report, the contents of a bundle."""

from __future__ import annotations

import json
import re

import pytest

from deskocr_kit.doctor.examination import examine_files
from deskocr_kit.doctor.main import run
from deskocr_kit.doctor.report import Report, Row
from tests.helpers.doctor_cases import GOOD, LAPTOP, OLD_310, folders, pip
from tests.helpers.paths import ASCEND


@pytest.fixture
def folder(tmp_path):
    return folders(tmp_path)


def row(report: Report, name: str) -> Row:
    found = [r for r in report.rows if r.name == name]
    assert len(found) == 1, f"{name}: {[r.name for r in report.rows]}"
    return found[0]


def test_a_healthy_machine(folder):
    report = examine_files(folder())
    assert report.usable and report.exit_code == 0 and report.device == "npu"
    assert {r.status for r in report.rows} <= {"OK", "SKIP"}, report.text()
    facts = report.as_dict()["facts"]
    assert [chip["id"] for chip in facts["npus"]] == list(range(8))
    assert facts["npus"][4]["processes"] == [{"pid": 1601114, "name": "python", "memory_mib": 18429}]
    assert facts["npus"][4]["hbm_free_mib"] == 65536 - 21784
    assert facts["cann"]["version"] == "8.3.RC1"
    assert facts["driver"]["version"] == "25.3.rc1"
    assert facts["firmware"]["version"] == "7.7.0.1.231"


def test_the_believed_pair_is_named_with_its_remedy(folder):
    report = examine_files(folder(pip_D_list__txt=GOOD["pip-list.txt"].replace("post3", "post5")))
    pair = row(report, "torch-npu + CANN")
    assert pair.status == "WARN" and "torch-npu==2.6.0.post3" in pair.remedy and "8.5.0" in pair.seen
    assert report.usable


@pytest.mark.parametrize(
    ("change", "name", "status", "remedy"),
    [
        ({"pip_D_list__txt": pip(numpy="2.1.0")}, "numpy + CANN", "FAIL", 'pip install "numpy<2"'),
        (
            {"pip_D_list__txt": pip(torch="2.12.0", torch_npu="2.8.0.post2")},
            "torch-npu",
            "FAIL",
            "pip install torch==2.8.0",
        ),
        (
            {"pip_D_list__txt": "torch==2.6.0\ntransformers==4.51.3\nnumpy==1.26.4\n"},
            "torch-npu",
            "FAIL",
            "torch-npu==2.6.0.post3",
        ),
        (
            {"pip_D_list__txt": "torch==2.6.0\ntorch-npu==2.6.0.post3\nnumpy==1.26.4\n"},
            "transformers",
            "FAIL",
            "pip install",
        ),
        (
            {"env__txt": "HOME=/root\n"},
            "set_env.sh",
            "FAIL",
            "source /usr/local/Ascend/ascend-toolkit/set_env.sh",
        ),
        (
            {
                "env__txt": "HOME=/root\n",
                "ascend_toolkit_install__info": "cann/ascend_toolkit_install.info_8.5.0",
            },
            "set_env.sh",
            "FAIL",
            "source /usr/local/Ascend/cann/set_env.sh",
        ),
        (
            {"env__txt": GOOD["env.txt"] + "ASCEND_RT_VISIBLE_DEVICES=8\n"},
            "ASCEND_RT_VISIBLE_DEVICES",
            "FAIL",
            "export ASCEND_RT_VISIBLE_DEVICES=0",
        ),
        (
            {"env__txt": GOOD["env.txt"] + "ASCEND_LAUNCH_BLOCKING=1\n"},
            "ASCEND_LAUNCH_BLOCKING",
            "WARN",
            "unset",
        ),
        (
            {"env__txt": GOOD["env.txt"] + "TASK_QUEUE_ENABLE=0\n"},
            "TASK_QUEUE_ENABLE",
            "WARN",
            "export TASK_QUEUE_ENABLE=1",
        ),
        (
            {"npu_D_smi__txt": "dcmi module initialize failed. ret is -8005\n"},
            "npu-smi",
            "FAIL",
            "--device /dev/davinci_manager",
        ),
        ({"npu_D_smi__txt": "npu-smi/OLD_910_named_910B_x8_v25.5.2_idle.txt"}, "chip", "WARN", "float16"),
        ({"npu_D_smi__txt": OLD_310}, "chip", "FAIL", "910B"),
        (
            {
                "firmware_version__info": "Version=7.1.0.5.220\n",
                "driver_version__info": "Version=25.5.1\ncompatible_version_fw=[7.7.0,8.9.9]\n",
            },
            "firmware",
            "WARN",
            "same HDK",
        ),
        ({"version__cfg": "cann/version.cfg_8.0.RC3"}, "CANN", "WARN", "source ONE set_env.sh"),
    ],
)
def test_faults_are_named_with_what_to_type(folder, change, name, status, remedy):
    report = examine_files(folder(**change))
    found = row(report, name)
    assert found.status == status, report.text()
    assert remedy in found.remedy
    assert report.usable is (status != "FAIL") and report.exit_code == int(status == "FAIL")


def test_memory_held_by_others(folder):
    text = (ASCEND / "npu-smi/910B4x1_npu5_v25.5.2_idle.txt").read_text(encoding="utf-8")
    text = text.replace("2922 / 32768", "30711/ 32768").replace(
        "| No running processes found in NPU 5                                                            |",
        "| 5       0                 | 55115         |                          | 27784                   |",
    )
    report = examine_files(folder(npu_D_smi__txt=text))
    assert (
        "55115" in row(report, "NPU 5 in use").seen
        and "outside this container" in row(report, "NPU 5 in use").seen
    )
    free = row(report, "free memory")
    assert free.status == "FAIL" and "pid 55115" in free.remedy and "2057 of 32768" in free.seen


def test_one_sick_card_is_a_warning_and_all_sick_a_fault(folder):
    text = (ASCEND / GOOD["npu-smi.txt"]).read_text(encoding="utf-8")
    one = text.replace("910B3               | OK    ", "910B3               | Alarm ", 1)
    assert row(examine_files(folder(npu_D_smi__txt=one)), "health").status == "WARN"
    every = text.replace("910B3               | OK    ", "910B3               | Alarm ")
    assert row(examine_files(folder(npu_D_smi__txt=every)), "health").status == "FAIL"


@pytest.mark.parametrize("kept", sorted(GOOD))
def test_any_file_may_be_missing(folder, kept):
    alone = examine_files(folder({kept: GOOD[kept]}))
    assert alone.rows and alone.verdict
    json.loads(alone.json())
    without = examine_files(folder({name: text for name, text in GOOD.items() if name != kept}))
    assert without.usable, without.text()


@pytest.mark.parametrize("sample", sorted(p.name for p in (ASCEND / "npu-smi").iterdir()))
def test_every_npu_smi_sample_gets_a_report(folder, sample):
    report = examine_files(folder(npu_D_smi__txt=f"npu-smi/{sample}"))
    assert report.facts["npus"], sample
    assert all(r.remedy for r in report.rows if r.status == "FAIL")


def test_a_laptop_is_not_a_wall_of_failures(folder):
    report = examine_files(folder({"env.txt": "HOME=/root\n", "pip-list.txt": LAPTOP}))
    assert report.usable and "no NPU" in row(report, "NPU").seen
    assert {r.status for r in report.rows} <= {"OK", "SKIP"}
    shell = examine_files(
        folder(
            {
                "npu-smi.txt": "bash: npu-smi: command not found\n",
                "pip-list.txt": LAPTOP,
            }
        )
    )
    assert shell.usable and row(shell, "NPU").status == "SKIP"


def test_nothing_to_read(tmp_path, capsys):
    assert run(source=str(tmp_path / "absent")) == 2
    assert run(source=str(tmp_path)) == 2
    (tmp_path / "note.txt").write_text("hello")
    assert run(source=str(tmp_path / "note.txt")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("deskocr doctor: ") for line in lines), lines
    assert all("npu-smi.txt" in line or "--bundle" in line for line in lines), lines


def test_odd_bytes_and_utf16_are_read(folder):
    target = folder()
    (target / "ascend_toolkit_install.info").write_bytes(
        b"\xff\xfe" + "version=8.3.RC1\r\n".encode("utf-16-le")
    )
    (target / "driver_version.info").write_bytes(b"Version=25.3.rc1\nname=\xc3\x28\xff\n")
    facts = examine_files(target).facts
    assert (facts["cann"]["version"], facts["driver"]["version"]) == ("8.3.RC1", "25.3.rc1")


# ---- the report ----


def test_text_and_html_say_the_status_in_words_and_escape():
    report = Report(
        [Row("G", "<b>name</b>", "FAIL", "<script>alert(1)</script>", "a & b"), Row("G", "x", "OK", "fine")],
        "cpu",
    )
    text, page = repr(report), report._repr_html_()
    assert "FAIL" in text and "-> a & b" in text and "NOT usable" in text
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &amp; b" in page
    assert page.count("<b>FAIL</b>") == 1 and page.count("<b>OK</b>") == 1
    assert not re.search(r"\x1b\[", text)


def test_a_row_must_have_a_known_status():
    with pytest.raises(ValueError, match="GOOD"):
        Row("G", "x", "GOOD", "")


def test_json_holds_what_a_script_needs(folder, capsys):
    assert run(as_json=True, source=str(folder())) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"usable", "verdict", "device", "source", "rows", "facts"}
    assert {"group", "name", "status", "seen", "remedy"} == set(report["rows"][0])
    chip = report["facts"]["npus"][0]
    assert {"id", "chip", "name", "health", "hbm_used_mib", "hbm_total_mib", "processes"} <= set(chip)


REFUSALS = {
    "npu-smi.txt": "zsh: command not found: npu-smi",
    "driver_version.info": "cat: /usr/local/Ascend/driver/version.info: No such file or directory",
    "ascend_toolkit_install.info": "cat: latest/ascend_toolkit_install.info: 没有那个文件或目录",
}


def test_what_a_shell_refused_was_not_captured(folder):
    """Files from `cat x > y 2>&1` on a machine without x."""
    files = {**GOOD, **REFUSALS}
    report = examine_files(folder(base=files))
    rows = {row.name: row for row in report.rows}
    assert report.facts["npus"] == [] and report.facts["driver"]["version"] is None
    assert rows["npu-smi"].status == "WARN" and "command not found" in rows["npu-smi"].seen
    assert "No such file" in rows["driver"].seen and rows["CANN"].status == "SKIP"
    denied = folder(base={**GOOD, "npu-smi.txt": "-bash: /usr/local/sbin/npu-smi: Permission denied"})
    assert {row.name: row for row in examine_files(denied).rows}["npu-smi"].status == "FAIL"


def test_utf16_without_its_mark(folder):
    target = folder()
    for name, coding in (("env.txt", "utf-16-le"), ("ascend_toolkit_install.info", "utf-16-be")):
        text = (target / name).read_text(encoding="utf-8")
        (target / name).write_bytes(text.replace("\n", "\r\n").encode(coding))
    assert examine_files(target).facts["cann"]["version"] == "8.3.RC1"
    assert examine_files(target).facts["env"]["ASCEND_OPP_PATH"].endswith("/opp")
