"""Each remedy that doctor prints is followed once: there must be fewer faults then, and no new one."""

from __future__ import annotations

import random

import pytest

from deskocr_kit.ascend import versions
from deskocr_kit.doctor import facts
from deskocr_kit.doctor.capture import Capture, _note_what_says_nothing
from deskocr_kit.doctor.examination import judge
from deskocr_kit.doctor.report import Row
from tests.helpers.doctor_cases import GOOD, OLD_310, SET_ENV, pip
from tests.helpers.paths import ASCEND, ROOT
from tests.helpers.remedies import follow, good

FAULTS = ROOT / "tests" / "data" / "faults" / "doctor"


def examined(files: dict[str, str]) -> list[Row]:
    capture = Capture("files", dict(files))
    _note_what_says_nothing(capture)
    return judge(capture, facts.collect(capture))


def faults(rows: list[Row]) -> dict[str, str]:
    return {row.name: row.status for row in rows if row.status in ("WARN", "FAIL")}


def check(files: dict[str, str]) -> int:
    """Follow every remedy; returns how many were followed."""
    rows, followed = examined(files), 0
    before = faults(rows)
    for row in rows:
        if row.status not in ("WARN", "FAIL") or not row.remedy:
            assert row.status != "FAIL" or row.remedy, row
            continue
        for changed in follow(files, row.remedy):
            after = faults(examined(changed))
            followed += 1
            text = f"{row}\n{before}\n{after}\n{changed.get('pip-list.txt')}"
            # A file that is captured again may show what it hid; any other remedy makes no new fault.
            assert set(after) <= set(before) or row.group == "Files", f"new faults after {text}"
            helped = row.name not in after or (row.status, after[row.name]) == ("FAIL", "WARN")
            assert helped, f"no help: {text}"
            failing = {name for name, status in after.items() if status == "FAIL"}
            worse = {name for name in failing if before.get(name) != "FAIL"}
            assert not worse, f"{worse} after {text}"
    return followed


def machine(**changes: str | None) -> dict[str, str]:
    files = {name: good(name) for name in GOOD}
    for name, text in changes.items():
        name = name.replace("__", ".").replace("_D_", "-")
        sample = ASCEND / text if text and "\n" not in text else None
        files[name] = sample.read_text("utf-8") if sample and sample.is_file() else text
    return {name: text for name, text in files.items() if text is not None}


SMI = (ASCEND / GOOD["npu-smi.txt"]).read_text("utf-8")
CASES = {
    "numpy 2": {"pip_D_list__txt": pip(numpy="2.1.0")},
    "old numpy": {"pip_D_list__txt": pip(numpy="1.24.4")},
    "two torches": {"pip_D_list__txt": pip(torch="2.12.0", torch_npu="2.8.0.post2")},
    "another patch of torch": {"pip_D_list__txt": pip(torch="2.6.1")},
    "no torch_npu": {"pip_D_list__txt": "torch==2.6.0\ntransformers==4.51.3\nnumpy==1.26.4\n"},
    "no torch": {"pip_D_list__txt": "torch-npu==2.6.0.post3\ntransformers==4.51.3\nnumpy==1.26.4\n"},
    "nothing": {"pip_D_list__txt": "wheel==0.45\n"},
    "no transformers": {"pip_D_list__txt": "torch==2.6.0\ntorch-npu==2.6.0.post3\nnumpy==1.26.4\n"},
    "believed pair": {"pip_D_list__txt": pip(torch_npu="2.6.0.post5")},
    "undocumented build": {"pip_D_list__txt": pip(torch="2.13.0", torch_npu="2.13.0")},
    "no CANN file, two torches": {
        "pip_D_list__txt": pip(torch="2.12.0", torch_npu="2.8.0.post2"), "ascend_toolkit_install__info": None,
    },
    "no CANN file, no torch": {
        "pip_D_list__txt": "torch-npu==2.5.1\ntransformers==4.51.3\nnumpy==1.26.4\n",
        "ascend_toolkit_install__info": None,
    },
    "not sourced": {"env__txt": "HOME=/root\n"},
    "not sourced, CANN 8.5": {
        "env__txt": "HOME=/root\n", "ascend_toolkit_install__info": "cann/ascend_toolkit_install.info_8.5.0",
    },
    "half sourced": {"env__txt": GOOD["env.txt"].replace("ASCEND_OPP_PATH", "X").replace("PYTHONPATH", "Y")},
    "visible": {"env__txt": GOOD["env.txt"] + "ASCEND_RT_VISIBLE_DEVICES=8\n"},
    "visible words": {"env__txt": GOOD["env.txt"] + "ASCEND_RT_VISIBLE_DEVICES=all\n"},
    "visible nothing": {"env__txt": GOOD["env.txt"] + "ASCEND_RT_VISIBLE_DEVICES=\n"},
    "slow variables": {
        "env__txt": GOOD["env.txt"] + "ASCEND_LAUNCH_BLOCKING=1\nTASK_QUEUE_ENABLE=0\n"
        "ASCEND_GLOBAL_LOG_LEVEL=0\nASCEND_SLOG_PRINT_TO_STDOUT=1\nTORCH_DEVICE_BACKEND_AUTOLOAD=0\n",
    },
    "two CANNs": {"version__cfg": "cann/version.cfg_8.0.RC3"},
    "firmware": {
        "firmware_version__info": "Version=7.1.0.5.220\n",
        "driver_version__info": "Version=25.5.1\ncompatible_version_fw=[7.7.0,8.9.9]\n",
    },
    "old driver": {"driver_version__info": "Version=22.0.3\ninnerversion=V100R001C10SPC001B1\n"},
    "new CANN, old driver": {
        "driver_version__info": "Version=24.1.rc1\n",
        "ascend_toolkit_install__info": "package_name=x\nversion=9.1.0\n",
        "pip_D_list__txt": pip(torch="2.12.0", torch_npu="2.12.0"),
    },
    "no card": {"npu_D_smi__txt": "dcmi module initialize failed. ret is -8005\n"},
    "card in use": {"npu_D_smi__txt": "dcmi model initialized failed, the device is used. ret is -8020\n"},
    "first 910": {"npu_D_smi__txt": "npu-smi/OLD_910_named_910B_x8_v25.5.2_idle.txt"},
    "310": {"npu_D_smi__txt": OLD_310},
    "sick card": {"npu_D_smi__txt": SMI.replace("| OK            |", "| Alarm         |", 1)},
    "full card": {"npu_D_smi__txt": SMI.replace("/ 65536", "/ 06553").replace("34", "65")},
    "empty files": {"pip_D_list__txt": "\n", "env__txt": "\n", "npu_D_smi__txt": "hello\n"},
    "words": {
        "driver_version__info": "what?\n", "ascend_toolkit_install__info": "a\nb\n",
        "pip_D_list__txt": "?\n!\n",
    },
    "two Tritons": {"pip_D_list__txt": pip() + "triton==3.9.0\ntriton-ascend==3.2.0\n"},
    "no pip": {"pip_D_list__txt": "/usr/bin/python3: No module named pip\n"},
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_remedy_helps_and_breaks_nothing(name):
    files = machine(**CASES[name])
    assert faults(examined(files)), "nothing to remedy"
    check(files)


@pytest.mark.parametrize("name", sorted(path.name for path in FAULTS.iterdir()))
def test_the_remedies_of_the_reported_machines(name):
    check({path.name: path.read_text("utf-8") for path in (FAULTS / name).iterdir()})


def test_remedies_over_many_sets_of_versions():
    """CANN releases, torch, torch_npu and numpy in any combination (seeded), as users have them."""
    dice = random.Random(0)
    table = versions.tables()
    builds = [build for row in table["torch_npu_sets"] for build in row["torch_npu"]]
    followed = 0
    for _ in range(150):
        cann = dice.choice(table["cann_releases"])
        build = dice.choice([*builds, None])
        torch = dice.choice(["2.5.1", "2.6.0", "2.9.0", None])
        torch = versions.torch_of(build) if build and dice.random() < 0.5 else torch
        numpy = dice.choice(["1.24.4", "1.26.4", "2.1.0", None])
        lines = {"torch": torch, "torch-npu": build, "numpy": numpy, "transformers": "4.57.1"}
        new = versions.key(cann) >= versions.key("8.5.0")
        home = "/usr/local/Ascend/cann" if new else "/usr/local/Ascend/ascend-toolkit/latest"
        files = machine(
            ascend_toolkit_install__info=f"package_name=Ascend-cann-toolkit\nversion={cann}\n",
            env__txt=SET_ENV.format(home=home),
            pip_D_list__txt="".join(f"{name}=={version}\n" for name, version in lines.items() if version),
        )
        followed += check(files)
    assert followed > 200


def test_no_remedy_names_what_is_installed():
    for build, cann in (("2.8.0", "8.3.RC2"), ("2.9.0", "8.5.2"), ("2.4.0.post2", "8.0.1")):
        files = machine(
            ascend_toolkit_install__info=f"package_name=x\nversion={cann}\n",
            pip_D_list__txt=pip(torch=versions.torch_of(build), torch_npu=build),
        )
        rows = {row.name: row for row in examined(files)}
        assert rows["torch-npu + CANN"].status == "OK", rows["torch-npu + CANN"]
        for row in rows.values():
            assert f"torch-npu=={build}" not in row.remedy.split(), row
            assert not row.remedy.endswith(f"CANN {cann}"), row
