"""A bundle contains nothing private, and the doctor runs where few packages are installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from deskocr_kit.doctor import words
from deskocr_kit.doctor.examination import examine_files
from deskocr_kit.doctor.main import run
from tests.helpers.doctor_cases import GOOD, folders
from tests.helpers.paths import ASCEND


@pytest.fixture
def folder(tmp_path):
    return folders(tmp_path)


SECRETS = {
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOp",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI7MDENG",
    "DB_PASSWORD": "hunter2hunter2",
    "MY_COMPANY_THING": "projectzeus",
    "HTTPS_PROXY": "http://alice:s3cretpass@proxy.example:8080",
    "http_proxy": "alice2:s3cretpass2@proxy.example:8080",
    "ASCEND_PRIVATE_KEY": "abcdef0123456789",
    "ASCEND_PROCESS_LOG_PATH": "/home/zhangsan/logs",
    "HCCL_SOME_URL": "https://host/x?sig=deadbeefsig",
    "PYTHONPATH": "/home/zhangsan/lib:/usr/local/Ascend/cann/python/site-packages",
    "SSH_CONNECTION": "10.1.2.3 22 10.1.2.4 22",
}
PIP = (
    "torch==2.6.0\ntorch-npu==2.6.0.post3\ntransformers==4.51.3\nnumpy==1.26.4\n"
    "inner @ git+https://bob:ghp_abcdefghijklmnop@git.corp.example/inner.git@v1\n"
    "local 1.0 /home/zhangsan/src/local\n"
)


def test_bundle_has_no_secrets_and_reads_back(folder, tmp_path):
    env = GOOD["env.txt"].split("PYTHONPATH")[0] + "".join(f"{k}={v}\n" for k, v in SECRETS.items())
    env += "PRIVATE=-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\n"
    board = (ASCEND / "npu-smi-t/info_-t_board_25.5.1.txt").read_text(encoding="utf-8")
    smi = (ASCEND / GOOD["npu-smi.txt"]).read_text(encoding="utf-8") + board
    source = folder(env__txt=env, pip_D_list__txt=PIP, npu_D_smi__txt=smi)
    target = tmp_path / "out.zip"
    assert run(source=str(source), bundle=target) == 0
    with zipfile.ZipFile(target) as opened:
        everything = {name: opened.read(name).decode() for name in opened.namelist()}
    assert set(GOOD) <= set(everything)
    for name, text in everything.items():
        for secret in (
            "hf_AbCd", "wJalr", "hunter2", "projectzeus", "MY_COMPANY_THING", "alice", "s3cretpass",
            "abcdef0123456789", "zhangsan", "deadbeefsig", "10.1.2.3", "ghp_", "bob", "MIIEpAIB",
            "1025C9048791",
        ):  # fmt: skip
            assert secret not in text, f"{secret} in {name}: {text[max(0, text.find(secret) - 60) :][:160]}"
    assert "HTTPS_PROXY=<set>" in everything["env.txt"] and "proxy.example" not in everything["env.txt"]
    before, after = examine_files(source), examine_files(target)
    for part in ("npus", "cann", "driver", "firmware"):
        assert before.facts[part] == after.facts[part], part
    assert after.facts["packages"]["torch-npu"] == "2.6.0.post3"
    assert [(r.name, r.status) for r in before.rows] == [(r.name, r.status) for r in after.rows]


def test_versions_survive_the_scrubbing():
    keep = "Version=7.7.0.1.231 npu-smi 25.2.0 | 0000:C1:00.0 | 21784/ 65536 | torch==2.6.0+cpu pid 16011"
    assert words.clean(keep) == keep


def test_names_and_homes_are_replaced_as_words():
    text = "/home/li.wei/x /home/li.wei2/y host-li.wei npu"
    clean = words.clean(text)
    assert "li.wei" not in clean and clean.startswith("/home/<user>/") and clean.endswith(" npu")


def test_bundle_that_cannot_be_written(folder, capsys):
    assert run(source=str(folder()), bundle="/no/such/folder/out.zip") == 2
    assert "cannot write" in capsys.readouterr().err


# ---- without torch, typer or rich ----


def test_starts_with_the_standard_library_alone(folder):
    """Every third-party import fails: there is still a report, as plain text."""
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'torch', 'numpy', 'rich', 'typer', 'click', 'transformers'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import runpy\n"
        "sys.argv = ['doctor', '--from', sys.argv[1]]\n"
        "runpy.run_module('deskocr_kit.doctor', run_name='__main__')\n"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(folder())], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 0, child.stderr
    assert "Verdict: usable (npu)" in child.stdout


def test_torch_is_never_imported(folder):
    code = (
        "import sys; from deskocr_kit import examine_files, explain\n"
        "examine_files(sys.argv[1]); explain('NPU out of memory')\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder())], check=True, timeout=60)
