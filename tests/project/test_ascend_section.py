"""The section "On an Ascend machine" of the README agrees with doctor: versions, paths, Python, numpy."""

from __future__ import annotations

import re

import pytest

from deskocr_kit.ascend import versions
from deskocr_kit.doctor import facts, rules_python
from deskocr_kit.doctor.capture import Capture
from deskocr_kit.doctor.examination import judge
from deskocr_kit.doctor.report import Row
from tests.helpers.doctor_cases import GOOD
from tests.helpers.paths import ROOT
from tests.helpers.remedies import follow, good

(SECTION,) = re.findall(
    r'^<a id="ascend"></a>\n## [^\n]+\n\n```bash\n(.*?)```',
    (ROOT / "README.md").read_text("utf-8"),
    re.M | re.S,
)
(PIP, CANN), *_ = re.findall(r"^(pip install .*?) +# for CANN (\d+\.\d+);", SECTION, re.M)
PINS = dict(re.findall(r"(torch|torch-npu)==(\S+)", PIP))
NEW, OLD = re.search(r"^source (\S+) .*before CANN 8\.5: (\S+)$", SECTION, re.M).groups()
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def machine(cann: str, packages: str = "wheel==0.45\n", env: str = "HOME=/root\n") -> dict[str, str]:
    """A card with this CANN and a driver for it, before anything was installed or sourced."""
    files = {name: good(name) for name in GOOD} | {"pip-list.txt": packages, "env.txt": env}
    files["ascend_toolkit_install.info"] = f"package_name=Ascend-cann-toolkit\nversion={cann}\n"
    files["driver_version.info"] = "Version=25.5.1\n"
    files.pop("firmware_version.info", None)
    return files


def examined(files: dict[str, str]) -> list[Row]:
    capture = Capture("files", dict(files))
    return [row for row in judge(capture, facts.collect(capture)) if row.group in ("Python", "CANN")]


def test_the_steps_lead_to_a_machine_without_faults():
    """What pip would install for the line, with the project's own requirements."""
    own = re.findall(r'^    "((?:transformers|numpy)>=[\d.]+)",$', PROJECT, re.M)
    pip = re.sub(r'-e "\S+"', " ".join(own), PIP)  # a later requirement of numpy replaces an earlier one
    (sourced,) = follow(machine(CANN + ".0"), f"source {NEW}")
    (installed,) = follow(sourced, pip)
    assert {row.name: row.status for row in examined(installed) if row.status in ("WARN", "FAIL")} == {}
    assert [row for row in examined(installed) if row.name == "torch-npu + CANN" and row.status == "OK"]


def test_doctor_names_the_same_set_before_the_installation():
    (row,) = (row for row in examined(machine(CANN + ".0")) if row.name == "torch-npu")
    assert row.status == "FAIL" and rules_python.X86_INDEX.strip(" ()").rpartition(" ")[2] in SECTION
    # doctor takes the newest torch for this CANN; with the torch of the README it names its torch-npu.
    with_torch = machine(CANN + ".0", f"torch=={PINS['torch']}\nwheel==0.45\n")
    (row,) = (row for row in examined(with_torch) if row.name == "torch-npu")
    assert f"torch=={PINS['torch']} torch-npu=={PINS['torch-npu']} " in row.remedy
    (numpy,) = re.findall(r'"numpy\S+"', PIP)
    assert numpy in row.remedy


def test_the_sourced_paths_are_those_of_doctor():
    for cann, path in ((CANN + ".0", NEW), ("8.3.RC1", OLD)):
        (row,) = (row for row in examined(machine(cann)) if row.name == "set_env.sh")
        assert path in row.remedy, cann


def test_the_pair_is_for_the_cann_of_the_line():
    assert versions.documented(PINS["torch-npu"], CANN + ".0") is True
    assert versions.torch_of(PINS["torch-npu"]) == PINS["torch"]
    assert versions.documented(PINS["torch-npu"], "8.3.RC1") is not True, "the old path is for other pairs"


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "docs/engines.md", "docs/batch.md"]
)
def test_the_extras_that_a_page_installs_exist(name):
    extras = set(re.findall(r"^(\w+) = \[", PROJECT.partition("[project.optional-dependencies]")[2], re.M))
    for named in re.findall(r"\.\[([\w,]+)\]", (ROOT / name).read_text("utf-8")):
        assert set(named.split(",")) <= extras, named


def test_the_weights_are_downloaded_with_one_command_everywhere():
    pages = ("README.md", "README.zh-CN.md", "model/README.md", "deskocr_kit/commands/demo.py")
    lines = [
        re.findall(r"hf download .*?--local-dir \S+", (ROOT / page).read_text("utf-8")) for page in pages
    ]
    assert len({line for found in lines for line in found}) == 1 and all(lines)
