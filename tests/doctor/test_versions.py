"""Version files, the comparison of versions, and the documented combinations."""

from __future__ import annotations

import pytest

from deskocr_kit.ascend import versions
from deskocr_kit.ascend.versions import key
from deskocr_kit.doctor import captured_lists as capture
from tests.helpers.paths import ASCEND

CANN = ASCEND / "cann"


def text(name: str) -> str:
    return (CANN / name).read_text(encoding="utf-8")


def test_versions_sort_as_released():
    cann = "8.0.RC3 8.0.0 8.0.1 8.1.RC1 8.3.RC1 8.3.RC2 8.5.0 9.0.0-alpha.1 9.0.0-beta.2 9.0.0 9.1.0".split()
    assert sorted(cann, key=key) == cann
    driver = "24.1.RC2 24.1.rc3 24.1.0 25.0.rc1.b010 25.0.rc1.1 25.2.0 25.5.1 25.5.2 26.0.RC1".split()
    assert sorted(driver, key=key) == driver
    wheels = "2.6.0 2.6.0.post3 2.6.0.post5 2.6.1 2.10.0".split()
    assert sorted(wheels, key=key) == wheels
    assert key("8.5.0") == key("8.5") and key("2.6.0+cpu") == key("2.6.0")


@pytest.mark.parametrize(
    ("name", "version", "inner"),
    [
        ("ascend_toolkit_install.info_8.3.RC1", "8.3.RC1", "V100R001C23SPC001B235"),
        ("ascend_toolkit_install.info_8.3.RC1_x86", "8.3.RC1", "V100R001C23SPC001B224"),
        ("ascend_toolkit_install.info_8.3.RC2", "8.3.RC2", "V100R001C23SPC002B210"),
        ("ascend_toolkit_install.info_8.5.0", "8.5.0", "V100R001C25SPC001B232"),
        (
            "toolkit_version.info_8.2.RC1",
            "8.2.RC1",
            None,
        ),  # Version= is internal there, version_dir is public
        ("opp_version.info_8.5.0", "8.5.0", None),
        ("opp_kernel_version.info_8.2.RC1", "8.2.RC1", None),
        ("nnal_atb_version.info_8.2.RC1", "8.2.RC1", None),
    ],
)
def test_toolkit_files(name, version, inner):
    for spoilt in (text(name), text(name).replace("\n", "\r\n"), "\ufeff# comment\n\n" + text(name)):
        found = versions.parse_toolkit(spoilt)
        assert (found["version"], found["innerversion"]) == (version, inner)


def test_version_cfg_takes_the_public_half():
    assert versions.parse_version_cfg(text("version.cfg_latest_8.0.0"))["version"] == "8.0.0"
    found = versions.parse_version_cfg(text("version.cfg_8.0.RC3"))
    assert set(found["packages"].values()) == {"8.0.RC3"} and "toolkit" in found["packages"]
    mixed = (
        "toolkit_installed_version=[7.5:8.0.RC3],[7.6:8.0.0]\ntoolkit_running_version=[7.6.0.1.220:8.0.0]\n"
    )
    assert versions.parse_version_cfg(mixed)["version"] == "8.0.0"
    assert versions.parse_version_cfg("")["version"] is None


def test_driver_and_firmware_files():
    driver = versions.parse_driver(text("driver_version.info_25.0.rc1.1"))
    assert (driver["version"], driver["innerversion"]) == ("25.0.rc1.1", "V100R001C21SPC002B220")
    assert driver["compatible_firmware"] == [["7.0.0", "7.7.99"]]
    older = text("driver_version.info_25.3.rc1").replace("package_version=25.3.rc1\n", "")
    assert versions.parse_driver(older)["version"] == "25.3.rc1"  # 24.1 has no package_version
    firmware = versions.parse_firmware(text("firmware_version.info_7.7.0.1.231"))
    assert firmware["version"] == "7.7.0.1.231"
    assert versions.firmware_fits(driver, firmware) is True
    assert versions.firmware_fits(driver, {"version": "7.8.0.6.201"}) is False
    assert versions.firmware_fits(driver, {"version": None}) is None


def test_documented_pairs():
    assert versions.documented("2.6.0.post3", "8.3.RC1") is True
    assert versions.documented("2.6.0.post5", "8.3.RC1") is False  # the pair of the original project
    assert versions.documented("2.6.0.post5", "8.5.0") is True
    assert versions.documented("2.6.0.post5", "9.1.0") is True  # branch 7.3 is stated for 8.5, 9.0 and 9.1
    assert versions.documented("2.12.0", "8.5.2") is True
    assert versions.documented("2.12.0", "8.3.RC1") is False
    assert versions.documented("2.13.0", "9.1.0") is None
    assert versions.documented("9.9.9", "9.1.0") is None
    assert versions.builds_for("8.3.RC1", "2.6.0+cpu") == ["2.6.0.post3"]
    assert versions.builds_for("8.3.RC2", "2.8.0") == ["2.8.0"]


@pytest.mark.parametrize("cann", ["8.3.RC1", "8.3.RC2", "8.5.0"])
@pytest.mark.parametrize("driver", ["25.0.rc1.1", "25.3.rc1"])
def test_sampled_drivers_fit(cann, driver):
    one = versions.parse_toolkit(text(f"ascend_toolkit_install.info_{cann}"))
    assert versions.driver_fits(one, versions.parse_driver(text(f"driver_version.info_{driver}")))[0] == "OK"


def test_drivers_that_do_not_fit():
    cann = versions.parse_toolkit(text("ascend_toolkit_install.info_8.5.0"))
    ancient = {"version": "22.0.3", "innerversion": "V100R001C10SPC001B1", "compatible_version": []}
    assert versions.driver_fits(cann, ancient)[0] == "FAIL"
    unnamed = {
        "version": "25.1.0",
        "innerversion": "V100R001C22SPC001B1",
        "compatible_version": ["V100R001C22"],
    }
    assert versions.driver_fits(cann, unnamed)[0] == "WARN"
    assert versions.driver_fits({"version": "9.1.0"}, {"version": "24.1.rc1"})[0] == "WARN"
    assert versions.driver_fits({"version": "9.0.0"}, {"version": "26.0.rc1"})[0] == "OK"


def test_first_generation_named_910b_is_not_the_a2():
    assert versions.chip_kind("910B", 13552, 32768)["generation"] == "A1"
    assert versions.chip_kind("910B3", 0, 65536)["generation"] == "A2"
    assert versions.chip_kind("910B", 0, 65536)["generation"] == "A2"
    for name, generation in {
        "Ascend910": "A3",
        "910ProB": "A1",
        "310P3": "310P",
        "310B4": "310B",
        "310": "310",
    }.items():
        assert versions.chip_kind(name, 1, 32768)["generation"] == generation, name
    assert versions.chip_kind("T4") is None and versions.chip_kind(None) is None


def test_pip_lists_of_every_form():
    want = {"torch": "2.6.0+cpu", "torch-npu": "2.6.0.post5", "numpy": "1.26.4"}
    forms = [
        "Package   Version   Editable project location\n-------- ------- ----\n"
        "torch 2.6.0+cpu\ntorch_npu 2.6.0.post5 /home/a/b\nnumpy 1.26.4\n",
        "torch==2.6.0+cpu\ntorch-npu @ file:///srv/torch_npu-2.6.0.post5-cp311-cp311-linux_aarch64.whl#sha256=ab\nnumpy==1.26.4\n",
        '[{"name": "torch", "version": "2.6.0+cpu"},\n'
        ' {"name": "torch_npu", "version": "2.6.0.post5"},\n {"name": "numpy", "version": "1.26.4"}]',
        "# packages in environment at /opt/conda:\n#\n"
        "torch   2.6.0+cpu  pypi_0  pypi\ntorch-npu 2.6.0.post5 pypi_0 pypi\nnumpy  1.26.4  py311h  forge\n",
    ]
    for form in forms:
        found = capture.parse_pip(form)
        assert {name: found.get(name) for name in want} == want, form


def test_env_of_every_form():
    want = {"ASCEND_HOME_PATH": "/usr/local/Ascend/cann-8.5.0", "TASK_QUEUE_ENABLE": "1"}
    for form in (
        "ASCEND_HOME_PATH=/usr/local/Ascend/cann-8.5.0\nTASK_QUEUE_ENABLE=1\n",
        'declare -x ASCEND_HOME_PATH="/usr/local/Ascend/cann-8.5.0"\ndeclare -x TASK_QUEUE_ENABLE="1"\n',
        "export ASCEND_HOME_PATH='/usr/local/Ascend/cann-8.5.0'\r\nexport TASK_QUEUE_ENABLE=1\r\n",
    ):
        assert capture.parse_env(form) == want


def test_env_with_quotes_names_alone_and_zeros():
    given = 'declare -x A="a \\"b\\" \\$c"\ndeclare -x EMPTY\nexport LONE\ndeclare -rx B="2"\n'
    assert capture.parse_env(given) == {"A": 'a "b" $c', "B": "2"}
    assert capture.parse_env("export A='it'\\''s'\nexport B\n") == {"A": "it's"}
    assert capture.parse_env("A=1\0B=two words\0") == {"A": "1", "B": "two words"}


def test_pip_lists_between_notices_and_cut_off():
    notice = "\n[notice] A new release of pip is available: 23.0 -> 25.3\n"
    whole = '[{"name": "torch", "version": "2.6.0"}, {"name": "torch_npu", "version": "2.6.0.post5"}]'
    want = {"torch": "2.6.0", "torch-npu": "2.6.0.post5"}
    assert capture.parse_pip("WARNING: cache is off\n" + whole + notice) == want
    assert capture.parse_pip(whole[:-20]) == {"torch": "2.6.0"}
    assert capture.parse_pip("torch (2.6.0)\ntorch-npu (2.6.0.post5)\n") == want
    assert capture.parse_pip("torch=2.6.0=py311_0\ntorch-npu=2.6.0.post5=pypi_0\n") == want


def test_a_version_alone_and_a_new_name_of_its_folder():
    assert versions.parse_version_cfg("8.0.RC3\n")["version"] == "8.0.RC3"
    assert versions.parse_toolkit("9.1.0-beta.1\n")["version"] == "9.1.0-beta.1"
    assert versions.parse_toolkit("version_dir=cann-9.1.0\n")["version"] == "9.1.0"
    assert versions.parse_driver("24.1.rc2\r\n")["version"] == "24.1.rc2"
    for junk in ("", "no version", "cat: 8.0: No such file", "1"):
        assert versions.parse_toolkit(junk)["version"] is None
