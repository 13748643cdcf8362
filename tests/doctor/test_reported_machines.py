"""The machines of public reports in tests/data/faults/doctor, and their siblings: the right verdict."""

from __future__ import annotations

import pytest

from deskocr_kit.ascend import versions
from deskocr_kit.doctor import npu_smi
from deskocr_kit.doctor.examination import examine_files
from tests.helpers.doctor_cases import GOOD, folders, pip
from tests.helpers.paths import ROOT

FAULTS = ROOT / "tests" / "data" / "faults" / "doctor"


@pytest.fixture
def folder(tmp_path):
    return folders(tmp_path)


def rows(source) -> dict:
    return {row.name: row for row in examine_files(source).rows}


def test_a_row_without_a_chip_does_not_end_the_table():
    found = rows(FAULTS / "map-page")
    assert found["npu-smi"].seen.startswith("8 card(s)")
    assert all(row.status != "FAIL" for row in found.values())
    assert "ASCEND_RT_VISIBLE_DEVICES=4,5" in found["environment"].seen


@pytest.mark.parametrize("empty", ["-", "NA", "N/A", "--", "none"])
@pytest.mark.parametrize("blanks", ["   ", "\t", " "])
def test_pages_of_the_mapping_in_other_layouts(empty, blanks):
    header = ["NPU ID", "Chip ID", "Chip Logic ID", "Chip Phy-ID", "Chip Name"]
    lines = [header]
    for card in range(3):
        lines += [
            [str(card), "0", str(card), str(card), "Ascend 910B3"],
            [str(card), "1", empty, empty, "Mcu"],
        ]
        lines += [[str(card), "2", empty, empty, empty]]
    chips = npu_smi.parse("\n".join(blanks.join(line) for line in lines)).chips
    assert [(c.id, c.chip, c.logic_id, c.phy_id, c.name) for c in chips] == [
        (card, 0, card, card, "Ascend 910B3") for card in range(3)
    ]


def test_an_unknown_column_of_the_mapping_keeps_the_others_in_place():
    text = "NPU ID    Chip ID    Die ID    Chip Logic ID    Chip Name\n0    0    7    3    Ascend910\n"
    (chip,) = npu_smi.parse(text).chips
    assert (chip.id, chip.chip, chip.logic_id, chip.name) == (0, 0, 3, "Ascend910")


def test_patch_releases_follow_one_rule_in_both_directions():
    found = rows(FAULTS / "patch-cann")
    assert found["torch-npu + CANN"].status == "OK" and "a patch of 8.3.RC1" in found["torch-npu + CANN"].seen
    for cann in versions.tables()["cann_releases"]:
        for build in versions.builds_for(cann):
            assert versions.documented(build, cann) is True, (build, cann)
        every = [build for row in versions.tables()["torch_npu_sets"] for build in row["torch_npu"]]
        fitting = [build for build in every if versions.documented(build, cann)]
        assert sorted(fitting) == sorted(versions.builds_for(cann)), cann
    assert versions.documented_release("8.0.1") == "8.0.0" and versions.documented_release("8.0.RC2") is None
    assert (
        versions.documented_release("8.3.RC2.B150") == "8.3.RC1"
        and versions.documented_release("9.7.0") is None
    )


def test_the_whole_set_is_advised_in_one_command():
    found = rows(FAULTS / "remedy-breaks")
    remedy = found["torch"].remedy
    assert 'torch==2.6.0 torch-npu==2.6.0 "transformers>=4.46" "numpy>=1.26,<2"' in remedy
    assert "Install CANN 8.2.RC1" in remedy  # no torch-npu for CANN 8.1 has a torch that this kit runs with
    assert found["numpy"].remedy == 'pip install "numpy>=1.26,<2"'


def test_numpy_2_is_allowed_from_cann_9_on_and_without_an_npu(folder):
    new = "package_name=x\nversion=9.1.0\n"
    old = pip(torch="2.12.0", torch_npu="2.12.0", numpy="1.24.4")
    assert rows(folder(ascend_toolkit_install__info=new, pip_D_list__txt=old))["numpy"].remedy == (
        'pip install "numpy>=1.26"'
    )
    laptop = {"env.txt": "A=1\n", "pip-list.txt": "torch==2.13.0\ntransformers==5.23.0\nnumpy==1.24.4\n"}
    assert rows(folder(laptop))["numpy"].remedy == 'pip install "numpy>=1.26"'


def test_lists_of_other_tools_are_read():
    found = rows(FAULTS / "foreign-list")
    assert found["torch"].seen == "2.8.0+cpu" and found["numpy"].status == "OK"
    assert found["torch-npu + CANN"].status == "OK"


@pytest.mark.parametrize(
    "text",
    [
        "/usr/bin/python3: No module named pip\n",
        "\n \n",
        "?\n!\n",
        "Traceback (most recent call last):\n  x\n",
    ],
)
@pytest.mark.parametrize("name", sorted({*GOOD, "version.cfg"}))
def test_what_was_not_understood_is_no_finding(folder, name, text):
    if name == "npu-smi.txt" and "module" in text:
        text = "hello\n"
    found = rows(folder({**GOOD, name: text}))
    assert (found[name].group, found[name].status) == ("Files", "WARN")
    assert found[name].remedy.startswith("Capture it again: ")
    assert found[name].seen.startswith(("not understood", "empty"))
    assert all(row.status != "FAIL" for row in found.values()), found


def test_a_package_between_lines_that_were_not_understood_is_not_called_missing(folder):
    text = "torch==2.6.0\ntransformers==4.51.3\n%% numpy is 1.26.4 %%\nnumpy-is?\nwheel==0.1\nclick==0.1\n"
    found = rows(folder(pip_D_list__txt=text))
    assert found["numpy"].status == "WARN" and "not understood" in found["numpy"].seen
    assert found["torch-npu"].status == "WARN"
