"""Generated secrets in every place where text enters: none of them is in the bundle."""

from __future__ import annotations

import json
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deskocr_kit.doctor import bundle, facts, variables, words
from deskocr_kit.doctor.capture import Capture, _note_what_says_nothing
from deskocr_kit.doctor.examination import examine_files, judge
from deskocr_kit.doctor.report import Report, Row
from tests.helpers.doctor_cases import GOOD
from tests.helpers.remedies import good

BASE = {name: good(name) for name in GOOD} | {"version.cfg": "toolkit_running_version=[7.7:8.3.RC1]\n"}
BOARD = (
    "\tNPU ID      : 0\n\tSerial Number : {}\n\tVDie ID : {}\n\tChip Name : {}\n\tSoftware Version : 25.5.1\n"
)

LETTERS = string.ascii_letters + string.digits
#: A secret has a part that no word of the kit has; beside it anything may stand.
core = st.text(alphabet=LETTERS, min_size=9, max_size=24).filter(
    lambda each: re.search(r"\d", each) and re.search(r"[A-Za-z]{2}", each)
)
FORMS = (
    "{}", "--password {}", "--api-key {}", "pwd={}", "password is {}", '"{} with blanks"',
    "sk_live_{}", "npm_{}", "dapi{}", "hf_{}", "ghp_{}", "Bearer {}", "token: {}", "/home/{}/work",
    "/data/{}/weights", "/Users/{}/x", "C:\\Users\\{}\\x", "https://user:{}@host.example/x",
    "http://{}.corp.example:8080/a/b", "ssh://{}@10.1.2.3", "{}.internal.example.com",
    "user@{}.example", "x?sig={}", "AKIA{}", "eyJ{}.{}.{}", "-----BEGIN KEY-----{}", "{}\t", "'{}'",
    "secret:{}", "{}/{}", "a;{}", "serial number {}",
)  # fmt: skip
secret = st.tuples(core, st.sampled_from(FORMS)).map(lambda pair: (pair[0], pair[1].replace("{}", pair[0])))


def contents(texts: dict[str, str], rows: list[Row] | None = None) -> dict[str, str]:
    capture = Capture("/home/zhangsan/case", dict(texts), live=rows is not None)
    _note_what_says_nothing(capture)
    found = facts.collect(capture)
    report = Report(rows or judge(capture, found), None, capture.source, found, capture)
    return bundle.contents(capture, report)


def check(hidden: str, inside: dict[str, str]) -> None:
    for name, text in inside.items():
        assert hidden not in text, f"{hidden} in {name}: {text[max(0, text.find(hidden) - 60) :][:160]}"
    json.loads(inside["report.json"])


def public(text: str) -> bool:
    """Whether it is a word that stays by design, such as Ascend910, the name of a chip.

    If the kit let everything stay, Hypothesis would find no example, and the test would fail.
    """
    return words.clean(text) == text


NAMES = sorted(
    {*variables.SHAPES, "ASCEND_PWD", "TORCH_HUB_PW", "HF_TOKEN", "MY_THING", "HCCL_IF_IP", "ASCEND_X"}
)
PLACES = (
    "env", "env name", "smi line", "smi table", "process", "page", "pip", "pip url", "pip version",
    "version", "version line", "path", "driver", "another file",
)  # fmt: skip


def planted(place: str, core: str, text: str, name: str) -> dict[str, str]:
    texts = dict(BASE)
    line = text.replace("\n", " ")
    if place == "env":
        texts["env.txt"] += f"{name}={text}\n"
    elif place == "env name":
        texts["env.txt"] += f"ASCEND_{core}=1\n{core}={text}\n"
    elif place == "smi line":
        texts["npu-smi.txt"] = f"root@{core}:~# npu-smi info {line}\n" + texts["npu-smi.txt"] + line + "\n"
    elif place == "smi table":
        texts["npu-smi.txt"] = texts["npu-smi.txt"].replace("910B3 ", f"{line.replace('|', ' ')} ", 1)
    elif place == "process":
        command = f"/opt/{core}/bin/python --key={line}".replace("|", " ")
        texts["npu-smi.txt"] = texts["npu-smi.txt"].replace("| python ", f"| {command} ", 1)
        texts["npu-smi.txt"] += f"Process id : 7 Process name : python {line} Process memory(MB) : 5\n"
    elif place == "page":
        texts["npu-smi.txt"] += BOARD.format(line, line, line)
    elif place == "pip":
        texts["pip-list.txt"] += f"{core.lower()}==1.0\ninner-{core} 2.0 /home/{core}/src\n"
    elif place == "pip url":
        texts["pip-list.txt"] += f"inner @ git+https://bob:{core}@git.example/inner-1.0.tar.gz\n"
    elif place == "pip version":
        texts["pip-list.txt"] = texts["pip-list.txt"].replace("numpy==1.26.4", f"numpy==1.26.4+{core}")
    elif place == "version":
        texts["version.cfg"] = f"toolkit_running_version=[{line}:{line}]\n" + texts["version.cfg"]
    elif place == "version line":
        texts["ascend_toolkit_install.info"] += f"owner={line}\n{line}\ncomment : {line}\n"
    elif place == "path":
        texts["ascend_toolkit_install.info"] = f"path=/data/{core}/Ascend/{core}\n" + GOOD["env.txt"]
        texts["env.txt"] = texts["env.txt"].replace("/usr/local/Ascend", f"/data/{core}/Ascend")
    elif place == "driver":
        texts["driver_version.info"] += f"package_version={line}\ninnerversion={line}\n"
    else:
        texts["firmware_version.info"] = f"cat: {line}: no such file or directory\n"
    return texts


@pytest.mark.fuzz
@given(secret, st.sampled_from(PLACES), st.sampled_from(NAMES))
def test_no_secret_leaves_in_a_bundle(pair, place, name):
    hidden, text = pair
    assume(not public(hidden) and not public(text))
    inside = contents(planted(place, hidden, text, name))
    check(hidden, inside)
    assert "removed.txt" in inside and hidden not in inside["removed.txt"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_each_form_in_each_place(form, place):
    hidden = "Zq7rT9xKw2"
    name = "ASCEND_PROCESS_LOG_PATH" if "/" in form else "HCCL_CONNECT_TIMEOUT"
    check(hidden, contents(planted(place, hidden, form.replace("{}", hidden), name)))


@pytest.mark.fuzz
@given(secret, st.text(max_size=30))
def test_no_secret_of_a_live_row_leaves(pair, noise):
    hidden, text = pair
    assume(not public(hidden))
    rows = [
        Row("Python", "python", "OK", f"3.11.7 (/home/{hidden}/venv/bin/python)"),
        Row(
            "Device",
            "import torch",
            "FAIL",
            f"ImportError: {text} {noise}",
            f"source /data/{hidden}/set_env.sh",
        ),
        Row("Model", f"${hidden}", "FAIL", f"{text}: no *.safetensors files", "Check the path."),
    ]
    check(hidden, contents(BASE, rows))


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.17.250", "fe80::1ff:fe23:4567:890a", "00:1a:2b:3c:4d:5e"]
)
def test_addresses_do_not_leave(address):
    for place in ("smi line", "page", "version line", "env"):
        inside = contents(planted(place, address, f"host {address} is up", "no_proxy"))
        assert address not in inside["npu-smi.txt"] + inside["env.txt"] + inside["report.txt"], place


@pytest.mark.parametrize("number", ["1234567", "0042", "98765"])
@pytest.mark.parametrize(
    "words_before", ["password is", "--password", "pwd=", "Serial Number :", "passwd:", "secret"]
)
def test_short_numbers_after_words_for_secrets_do_not_leave(words_before, number):
    assert number not in words.clean(f"{words_before} {number}")


def test_what_is_useful_stays():
    inside = contents(BASE)
    assert "910B3" in inside["npu-smi.txt"] and "21784/ 65536" in inside["npu-smi.txt"]
    assert "torch-npu==2.6.0.post3" in inside["pip-list.txt"]
    assert "ASCEND_HOME_PATH=/usr/local/Ascend/ascend-toolkit/latest" in inside["env.txt"]
    assert "V100R001C23SPC001B235" in inside["ascend_toolkit_install.info"]
    error = "dcmi module initialize failed. ret is -8005"
    assert words.clean(error) == error
    message = "ImportError: libhccl.so: cannot open shared object file: No such file or directory"
    assert words.clean(message) == message


def test_the_program_of_a_process_without_its_folder_and_arguments():
    assert words.program("/opt/secret-project/bin/python3.11 train.py --key=abc") == "python3.11"
    assert words.program("VLLMEngineCor") == "VLLMEngineCor"
    assert words.program("sk_live_0123456789abcdefghijklmnopqrstuvwxyz") == words.REMOVED
    assert words.program("") == ""


def test_the_diagnosis_of_the_bundle_is_that_of_the_machine(tmp_path):
    texts = dict(BASE) | {
        "env.txt": GOOD["env.txt"].replace("/usr/local", "/data/zhangsan/my") + "ASCEND_PWD=x\n"
    }
    inside = contents(texts)
    for name, text in inside.items():
        (tmp_path / name).write_text(text, "utf-8")
    capture = Capture("files", texts)
    before = judge(capture, facts.collect(capture))
    after = examine_files(tmp_path).rows
    assert [(row.name, row.status) for row in before] == [(row.name, row.status) for row in after]
    assert "zhangsan" not in "".join(inside.values()) and "ASCEND_PWD" not in inside["env.txt"]
    assert (
        "variables that this kit does not know" in inside["removed.txt"]
        and "folders" in inside["removed.txt"]
    )
