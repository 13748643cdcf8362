"""`deskocr doctor` on a live machine whose driver hangs, crashes or is half installed (fakes on PATH)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deskocr_kit.doctor import capture, facts, probes, rules_npu, rules_speed
from deskocr_kit.doctor.case import Case
from tests.helpers.paths import ASCEND, ROOT

pytestmark = pytest.mark.skipif(os.name != "posix", reason="fake drivers are shell scripts")


def fake_program(folder: Path, body: str) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / "npu-smi"
    program.write_text("#!/bin/sh\n" + body)
    program.chmod(0o755)
    return folder


def doctor(*args: str, path: Path | None = None, **env: str) -> tuple[subprocess.CompletedProcess, float]:
    started = time.monotonic()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **env}
    for name in [n for n in environ if n.startswith(("ASCEND_", "TORCH_DEVICE"))]:
        if name not in env:
            del environ[name]
    if path is not None:
        environ["PATH"] = f"{path}{os.pathsep}{environ['PATH']}"
    child = subprocess.run(
        [sys.executable, "-m", "deskocr_kit.doctor", *args],
        capture_output=True,
        text=True,
        env=environ,
        timeout=120,
    )
    return child, time.monotonic() - started


def rows(child: subprocess.CompletedProcess) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(child.stdout)["rows"]}


def test_a_hanging_driver_costs_its_time_limit_only(tmp_path):
    # The grandchild keeps the output open after its parent is killed; there must still be a report.
    folder = fake_program(tmp_path / "bin", "echo partial\n(sleep 60 &)\nsleep 60\n")
    child, seconds = doctor("--json", "--quick", "--patience", "0.1", path=folder)
    assert seconds < 20, seconds
    found = rows(child)
    assert found["npu-smi"]["status"] == "FAIL" and "no answer within" in found["npu-smi"]["seen"]
    assert found["python"]["status"] == "OK" and child.returncode == 1


def test_a_crashing_driver_is_named(tmp_path):
    child, _ = doctor("--json", "--quick", path=fake_program(tmp_path / "bin", "kill -SEGV $$\n"))
    found = rows(child)
    assert found["npu-smi"]["status"] == "FAIL" and "SIGSEGV" in found["npu-smi"]["seen"]
    assert child.returncode == 1


def test_a_failing_driver_is_explained(tmp_path):
    body = "echo 'dcmi model initialized failed, because the device is used. ret is -8020'\nexit 1\n"
    child, _ = doctor("--json", "--quick", path=fake_program(tmp_path / "bin", body))
    found = rows(child)
    assert "-8020" in found["npu-smi"]["seen"] and "container" in found["npu-smi"]["remedy"]
    assert child.returncode == 1


def test_cards_without_torch_npu_and_cann_are_faults(tmp_path):
    sample = ASCEND / "npu-smi" / "910B4x1_npu5_v25.5.2_idle.txt"
    child, _ = doctor("--json", "--quick", path=fake_program(tmp_path / "bin", f"cat '{sample}'\n"))
    found = rows(child)
    assert json.loads(child.stdout)["facts"]["npus"][0]["id"] == 5
    for name in ("torch-npu", "CANN", "libraries", "device nodes"):
        assert found[name]["status"] == "FAIL" and found[name]["remedy"], name
    assert "libhccl.so" in found["libraries"]["seen"]
    assert child.returncode == 1


def broken_torch(folder: Path, wheel: bool = True) -> Path:
    """A torch whose import fails like the published ones next to a torch-npu without CANN."""
    package = folder / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import os\n"
        "__version__ = '2.6.0'\n"
        "if os.environ.get('TORCH_DEVICE_BACKEND_AUTOLOAD') != '0':\n"
        "    try:\n"
        "        raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')\n"
        "    except ImportError as error:\n"
        "        raise RuntimeError('Failed to load the backend extension: torch_npu. You can disable '\n"
        "            'extension auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.') from error\n"
        "import sys; print('{}'); sys.exit(0)\n"
    )
    names = {"torch": "2.6.0", **({"torch_npu": "2.6.0.post5"} if wheel else {})}
    for name, version in names.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        )
    return folder


def test_torch_npu_without_cann_is_named_with_the_variable(tmp_path):
    folder = broken_torch(tmp_path / "site")
    child, _ = doctor("--json", PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    found = rows(child)["import torch"]
    assert found["status"] == "FAIL" and child.returncode == 1
    assert "torch-npu is installed" in found["seen"]
    assert (
        "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in found["remedy"] and "pip uninstall torch-npu" in found["remedy"]
    )


def test_a_torch_that_is_broken_by_itself_is_not_blamed_on_torch_npu(tmp_path):
    folder = broken_torch(tmp_path / "site", wheel=False)
    (folder / "torch" / "__init__.py").write_text("raise ImportError('libtorch_cpu.so: file too short')\n")
    child, _ = doctor("--json", PYTHONPATH=f"{folder}{os.pathsep}{ROOT}")
    found = rows(child)["import torch"]
    assert found["status"] == "FAIL" and "file too short" in found["seen"]
    assert "torch-npu" not in found["seen"]


def test_the_same_report_in_plain_text(tmp_path):
    child, _ = doctor("--quick", path=fake_program(tmp_path / "bin", "exit 9\n"))
    assert "Verdict: NOT usable" in child.stdout and "\x1b[" not in child.stdout


def test_probe_states():
    assert probes.run([sys.executable, "-c", "print(1)"], 30).state == "ok"
    assert probes.run([sys.executable, "-c", "import sys; sys.exit(3)"], 30).code == 3
    assert probes.run(["/no/such/program"], 5).state == "missing"
    crash = probes.run([sys.executable, "-c", "import os; os.abort()"], 30)
    assert crash.state == "crash" and "SIGABRT" in crash.how
    slow = probes.run([sys.executable, "-c", "import time; time.sleep(30)"], 0.5)
    assert slow.state == "timeout" and "given up" in slow.how
    assert probes.Probe("ok", 'warning {x}\n{"a": 1}\n').result() == {"a": 1}
    assert probes.Probe("ok", "{broken\n").result() == {}


def test_a_library_that_crashes_the_loader_is_charged_alone(monkeypatch):
    code = (
        "import os, sys; from deskocr_kit.doctor.trials import libraries; load = libraries.ctypes.CDLL;"
        "libraries.ctypes.CDLL = lambda name: os.abort() if 'hccl' in name else load(name);"
        "libraries.main(sys.argv[1:])"
    )

    def trial(name, seconds, *args):
        return probes.run([sys.executable, "-c", code, *args], seconds)

    monkeypatch.setattr(probes, "trial", trial)
    found = probes.libraries(30)
    assert set(found) == set(probes.LIBRARIES)
    assert "SIGABRT" in found["libhccl.so"] and "crash" not in found["libgraph.so"]


# ---- rules that read the file system, here below another root ----


def live_case(root: Path, **more) -> Case:
    seen = capture.Capture("this machine", live=True, **more)
    return Case(seen, facts.collect(seen), root=root)


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("")


def npu_rows(case: Case) -> dict:
    return {row.name: row for row in rules_npu.rules(case)}


def test_device_nodes(tmp_path):
    touch(tmp_path, "dev/davinci0", "dev/davinci_manager")
    row = npu_rows(live_case(tmp_path))["device nodes"]
    assert row.status == "FAIL" and "--device /dev/devmm_svm --device /dev/hisi_hdc" in row.remedy
    touch(tmp_path, "dev/devmm_svm", "dev/hisi_hdc")
    row = npu_rows(live_case(tmp_path))["device nodes"]
    assert row.status == "OK" and "davinci0" in row.seen


def test_device_node_without_permission(tmp_path, monkeypatch):
    touch(tmp_path, "dev/davinci3", "dev/davinci_manager", "dev/devmm_svm", "dev/hisi_hdc", "etc/x")
    (tmp_path / "etc/ascend_install.info").write_text((ASCEND / "cann/etc_ascend_install.info").read_text())
    monkeypatch.setattr(rules_npu.os, "access", lambda path, mode: False)
    row = npu_rows(live_case(tmp_path))["device nodes"]
    assert row.status == "FAIL" and "usermod -aG HwHiAiUser" in row.remedy and "davinci3" in row.seen


def test_container_mounts(tmp_path):
    touch(tmp_path, "dev/davinci0", ".dockerenv")
    row = npu_rows(live_case(tmp_path))["container mounts"]
    assert row.status == "WARN" and "-v /usr/local/dcmi:/usr/local/dcmi" in row.remedy
    touch(
        tmp_path,
        "usr/local/dcmi/x",
        "usr/local/Ascend/driver/lib64/x",
        "usr/local/Ascend/driver/version.info",
    )
    assert npu_rows(live_case(tmp_path))["container mounts"].status == "OK"


def test_no_sign_of_an_npu_is_one_plain_row(tmp_path):
    (row,) = rules_npu.rules(live_case(tmp_path))
    assert row.status == "SKIP" and row.seen.startswith("no NPU here")


def test_matmul_verdicts(tmp_path):
    def verdict(**answer):
        case = live_case(tmp_path)
        case.probes["matmul"] = probes.Probe("ok", json.dumps({"device": "npu", **answer}))
        (row,) = rules_speed._matmul(case)
        return row.status

    assert verdict(relative_error=4e-4) == "OK"
    assert verdict(relative_error=0.3) == "FAIL"
    assert verdict(relative_error=float("nan")) == "FAIL"
    case = live_case(tmp_path)
    case.probes["matmul"] = probes.Probe(
        "error", stderr="RuntimeError: NPU out of memory. Tried to allocate 2 GiB", code=1
    )
    (row,) = rules_speed._matmul(case)
    assert row.status == "FAIL" and "PYTORCH_NPU_ALLOC_CONF" in row.remedy


def test_notebook_is_told_about_the_task_queue(tmp_path):
    touch(tmp_path, "dev/davinci0")
    case = live_case(tmp_path, files={"env.txt": "TASK_QUEUE_ENABLE=2\n"})
    case.notebook = True
    row = next(r for r in rules_speed.rules(case) if r.name == "TASK_QUEUE_ENABLE")
    assert row.status == "WARN" and "forces it to 0" in row.seen
