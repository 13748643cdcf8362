"""The real torch-npu wheel on a machine without an NPU: see real_wheel/README.md for what this proves.

pytest -m slow tests/real_wheel/test_real_wheel.py      (first run: about 300 MB of downloads, 1.5 GB on disk)
"""

from __future__ import annotations

import json
import re
import sys

import pytest

from deskocr_kit.ascend import dispatch, versions
from tests.helpers.paths import ASCEND, ROOT
from tests.real_wheel import environment as real
from tests.real_wheel.environment import INSIDE, TORCH_NPU, Environment

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="torch-npu is published for Linux only"),
]


def attempt(action, *arguments, **options):
    """Skip only if pip or uv cannot reach a package registry."""
    try:
        return action(*arguments, **options)
    except real.NoRegistry as error:
        pytest.skip(f"no package registry can be reached: {error}")


@pytest.fixture(scope="module")
def env() -> Environment:
    return attempt(real.build)


def answer(done) -> dict:
    """The JSON in the last line of a script in real_wheel/inside."""
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


# ---------------------------------------------------------------------- a. the wheel without CANN
def test_without_cann_torch_does_not_import_and_explain_says_why(env):
    broken = env.run("-c", "import torch", cann=False)
    assert broken.returncode != 0
    assert "Failed to load the backend extension: torch_npu" in broken.stderr

    told = env.run("-m", "deskocr_kit", "explain", "--json", "-", cann=False, stdin=broken.stderr)
    assert told.returncode == 0, told.stderr
    found = [match["id"] for match in json.loads(told.stdout)["matches"]]
    assert found[0] == "libhccl" and "autoload_fail" in found  # the cause before the message around it
    assert f"{AUTOLOAD}=0" in told.stdout

    assert env.run("-c", "import torch", cann=False, **{AUTOLOAD: "0"}).returncode == 0


@pytest.mark.parametrize("command", [("--help",), ("explain", "EL0004"), ("doctor", "--help")])
def test_without_cann_the_kit_stays_usable_for_what_needs_no_torch(env, command):
    done = env.run("-m", "deskocr_kit", *command, cann=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_without_cann_the_kit_imports(env):
    done = env.run("-c", "import deskocr_kit, sys; print('torch' in sys.modules)", cann=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def diagnose(env, cann: bool, **variables) -> tuple[int, dict]:
    done = env.run("-m", "deskocr_kit.doctor", "--json", "--patience", "5", cann=cann, **variables)
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, {row["name"]: row for row in json.loads(done.stdout)["rows"]}


def test_without_cann_doctor_names_the_fault_and_the_variable(env):
    status, rows = diagnose(env, cann=False)
    assert status == 1
    row = rows["import torch"]
    assert row["status"] == "FAIL" and "torch-npu" in row["seen"]
    assert f"{AUTOLOAD}=0" in row["remedy"] and "pip uninstall torch-npu" in row["remedy"]
    assert rows["torch-npu"]["status"] == "OK"  # the pair of wheels itself is right


def test_without_cann_doctor_sees_that_the_variable_does_not_mend_transformers(env):
    status, rows = diagnose(env, cann=False, **{AUTOLOAD: "0"})
    assert rows["import torch"]["status"] == "OK"
    assert status == 1 and rows["import transformers"]["status"] == "FAIL"
    assert "libhccl.so" in rows["import transformers"]["seen"]


@pytest.mark.parametrize("autoload", ["0", "1"])
def test_without_cann_the_device_layer_explains_and_goes_on(env, autoload):
    code = (
        "import json\n"
        "from deskocr_kit import device\n"
        "try: device.pick_device('npu')\n"
        "except device.DeviceError as error: text = str(error)\n"
        "picked = str(device.pick_device('auto'))\n"
        "from transformers import PreTrainedModel\n"
        "print(json.dumps({'text': text, 'picked': picked, 'npus': device.device_count('npu')}))"
    )
    found = answer(env.run("-c", code, cann=False, **{AUTOLOAD: autoload}))
    assert found["picked"] == "cpu" and found["npus"] == 0
    for part in ("CANN", "libascendcl.so", "set_env.sh", f"{AUTOLOAD}=0", "pip uninstall torch-npu"):
        assert part in found["text"]


# ---------------------------------------------------------------------- b. can it be installed?
def uv_resolve(env, architecture: str, *requirements: str) -> dict[str, str]:
    """{name: version} that a machine of this architecture would install. Nothing is installed."""
    machine = f"--python-platform={architecture}-manylinux_2_28 --python-version=3.11"
    quiet = "--only-binary=:all: --quiet --no-header --no-annotate"
    command = ["-m", "uv", "pip", "compile", *machine.split(), *quiet.split(), *requirements]
    done = env.run(*command, cann=False, UV_CACHE_DIR=str(real.CACHE / "uv"))
    if done.returncode:
        raise (real.NoRegistry if real.UNREACHABLE.search(done.stderr) else AssertionError)(done.stderr)
    return dict(line.split("==") for line in done.stdout.split() if "==" in line)


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
def test_the_environment_file_resolves_with_the_npu_extra(env, architecture):
    """The pip line of environment.yml for an Ascend machine: with the extra, without the constraints."""
    (line,) = re.findall(r"-e \.\[([\w,]*npu[\w,]*)\]", (ROOT / "environment.yml").read_text())
    extras = [f"--extra={extra}" for extra in line.split(",")]
    found = attempt(uv_resolve, env, architecture, str(ROOT / "pyproject.toml"), *extras)
    assert versions.minor(found["torch"]) == versions.minor(found["torch-npu"])
    assert {"transformers", "numpy", "pyyaml", "safetensors"} <= set(found)


@pytest.mark.parametrize("architecture", ["aarch64", "x86_64"])
@pytest.mark.parametrize("build", ["2.6.0.post5", "recommended", TORCH_NPU])
def test_the_wheels_are_published(env, architecture, build, tmp_path):
    build = versions.tables()["recommended"]["torch_npu"] if build == "recommended" else build
    platforms = [f"--platform=manylinux_{glibc}_{architecture}" for glibc in ("2_28", "2_17")]
    target = ["--python-version=3.11", "--only-binary=:all:", f"--target={tmp_path}", "--no-deps"]
    dry = ["--dry-run", "--ignore-installed", "--quiet", f"--report={tmp_path / 'report.json'}"]
    attempt(real.pip, env.python, "install", *dry, *target, *platforms, f"torch-npu=={build}")
    (wheel,) = json.loads((tmp_path / "report.json").read_text())["install"]
    name = wheel["download_info"]["url"].rpartition("/")[2]
    assert re.fullmatch(rf"torch_npu-{build}-cp311-cp311-manylinux_2_[\w.]*{architecture}\.whl", name)


def test_torch_npu_2_6_asks_for_a_torch_that_the_index_has_not_on_x86(env):
    """Its x86 wheel requires torch==2.6.0+cpu, only on PyTorch's own index; aarch64 is not affected."""
    pair = real.CACHE / "pair.in"
    pair.write_text("torch==2.6.0\ntorch-npu==2.6.0.post5\n")
    assert attempt(uv_resolve, env, "aarch64", str(pair))["torch"] == "2.6.0"
    with pytest.raises(AssertionError, match=r"2\.6\.0\+cpu"):
        attempt(uv_resolve, env, "x86_64", str(pair))


# ---------------------------------------------------------------------- c. the wheel with stub CANN
def test_device_layer_on_the_real_backend(env):
    found = answer(env.run(INSIDE / "device.py", cann=True, TASK_QUEUE_ENABLE="0"))
    assert found["count"] == 1 and found["device"] == "npu:0" and not found["simulated"]
    assert found["dtype"] == "torch.float16"
    assert found["describe"]["torch_npu"] == TORCH_NPU and found["describe"]["name"] == "Ascend910B3"
    assert "highest index is 0" in found["too high"]

    # Only with both off does a convolution use the operator library instead of compiling.
    assert found["convolution before"] == ["aclop:Conv2D"]
    assert found["convolution after"] == ["aclnnConvolution"]
    assert found["jit_compile is false"] is True
    assert found["said"] == "Ascend910B3: jit_compile off, allow_internal_format off\n"
    assert found["said again"] == ""

    assert found["seeds"] == [7, 8]
    tensor, padding = 2 << 20, 1024  # torch_npu rounds blocks up
    assert tensor <= found["memory"]["grew"] <= tensor + padding
    assert tensor <= found["memory"]["peak"] <= tensor + padding
    assert found["memory"]["after"] == 0 and found["memory"]["total"] == 2 << 30
    assert found["event seconds"] == 0 and found["timer seconds"] > 0  # the stub has no clock, the host has

    kind, text, recognised = found["out of memory"]
    assert (kind, recognised) == ("OutOfMemoryError", True) and "NPU out of memory" in text


def test_doctor_on_the_real_backend(env, tmp_path):
    """Its device rows use the names of torch_npu, and it detects a device that computes nothing."""
    home = tmp_path / "cann-9.1.0"
    for part in ("opp", "runtime", "compiler"):  # torch_npu tests for these packages of CANN
        (home / part).mkdir(parents=True)
    (home / "lib64").symlink_to(env.libraries)
    (home / "ascend_toolkit_install.info").write_text("package_name=Ascend-cann-toolkit\nversion=9.1.0\n")
    found = {"ASCEND_HOME_PATH": str(home), "ASCEND_OPP_PATH": str(home / "opp")}
    status, rows = diagnose(env, cann=True, LD_LIBRARY_PATH=str(home / "lib64"), **found)
    assert rows["CANN"]["status"] == "OK" and "9.1.0" in rows["CANN"]["seen"]
    assert rows["set_env.sh"]["status"] == "OK"
    assert rows["import torch"]["status"] == "OK" and "sees npu" in rows["import torch"]["seen"]
    matmul = rows["matmul (npu)"]
    assert status == 1 and matmul["status"] == "FAIL"
    assert "Ascend910B3" in matmul["seen"] and "computes wrong values" in matmul["remedy"]


def test_schemas_of_the_wheel(env):
    done = env.run(INSIDE / "schemas.py", cann=True)
    assert done.returncode == 0, done.stderr
    want = (ASCEND / f"npu_op_schemas_torch_npu_{TORCH_NPU}.txt").read_text().splitlines()
    assert [line for line in done.stdout.splitlines() if line.startswith("npu::")] == want


# Shapes, dtypes: from the documents of op-plugin. Calls: recorded with torch_npu 2.13.0; the suffix is the
# revision of the aclnn function.
OPERATORS = {
    "npu_rms_norm": ("(1, 5, 1280) float16; (1, 5, 1) float32", "aclnnRmsNorm"),
    "npu_add_rms_norm": (
        "(1, 5, 1280) float16; (1, 5, 1) float32; (1, 5, 1280) float16",
        "aclnnAddRmsNorm",
    ),
    "npu_rotary_mul": ("(1, 10, 5, 128) float16", "aclnnRotaryPositionEmbeddingV2"),
    "npu_swiglu": ("(5, 896) float16", "aclnnSwiGlu"),
    "npu_gelu": ("(1, 257, 4096) float16", "aclnnGeluV2"),
    "npu_fusion_attention": (
        "(1, 16, 257, 64) float16; (1, 16, 257, 8) float32; (1, 16, 257, 8) float32; (0,) float16",
        "aclnnFlashAttentionScore",
    ),
    "npu_prompt_flash_attention": ("(25, 12, 196, 64) float16", "aclnnPromptFlashAttentionV3"),
    "npu_fused_infer_attention_score": (
        "(1, 10, 1, 128) float16; (1, 10, 1, 1) float32",
        "aclnnFusedInferAttentionScoreV2",
    ),
    "npu_moe_gating_top_k_softmax": (
        "(5, 6) float16; (5, 6) int32; (5, 6) int32",
        "aclnnMoeGatingTopKSoftmax",
    ),
    "npu_moe_init_routing": ("(30, 1280) float16; (30,) int32; (30,) int32", "aclnnMoeInitRouting"),
    "npu_grouped_matmul": ("(30, 896) float16", "aclnnGroupedMatmulV5"),
    "npu_moe_finalize_routing": ("(5, 1280) float16", "aclnnMoeFinalizeRoutingV4"),
    "conv2d": ("(1, 768, 4, 4) float16", "aclnnConvolution"),
    "unfold": ("(1, 768, 16) float16", "aclnnIm2col"),
    "masked_scatter_": ("(273, 1280) float16", "aclnnInplaceMaskedScatter"),
    "index_copy": ("(273, 1280) float16", "aclnnIndexCopy"),
    "sdpa": ("(1, 16, 257, 64) float16", "aclnnFlashAttentionScore"),
}


@pytest.fixture(scope="module")
def operators(env) -> dict:
    return answer(env.run(INSIDE / "operators.py", cann=True, TASK_QUEUE_ENABLE="0"))


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_shapes_and_calls(operators, name):
    shapes, call = OPERATORS[name]
    found = operators[name]
    assert isinstance(found["fake"], list) and isinstance(found["real"], list), found
    for way in ("fake", "real"):
        assert "; ".join(f"{tuple(shape)} {dtype}" for shape, dtype, _ in found[way]) == shapes, way
        assert {device for *_, device in found[way]} == {"npu"}
    assert found["calls"] == [call]


def test_attention_with_a_float_mask_is_not_fused(operators):
    """The reason for a substitute of SAM's relative positions: two matmuls and a softmax between copies."""
    found = operators["sdpa with a float mask"]
    assert "aclnnFlashAttentionScore" not in found["calls"]
    assert found["calls"].count("aclnnMatmul") == 2 and len(found["calls"]) > 10
    assert found["fake"] == found["real"] == [[[25, 12, 196, 64], "float16", "npu"]]


def test_the_stored_dispatch_table_is_the_wheels(env, tmp_path):
    """Generated again from the dispatcher of the real wheel, byte for byte."""
    stored = dispatch.FOLDER / f"torch_npu_{TORCH_NPU}.tsv"
    done = env.run("-m", "deskocr_kit.simulator.dispatch_generator", tmp_path, cann=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / stored.name).read_text() == stored.read_text()


# ---------------------------------------------------------------------- d. the simulator beside it
def test_the_simulator_refuses_to_start_beside_the_real_backend(env):
    found = answer(env.run(INSIDE / "simulator.py", "real", cann=True))
    assert found["real is active"] and not found["installed"]
    assert found["install"][0] == "RealNpuPresent" and found["pick"][0] == "DeviceError"
    assert f"{AUTOLOAD}=0" in found["install"][1]
    assert found["copy"] == [0, 1, 2, 3]


def test_the_real_backend_is_kept_out_beside_the_simulator(env):
    """Else its kernels replace those of the simulator, and PyTorch ends the process (torch_npu 2.13)."""
    found = answer(env.run(INSIDE / "simulator.py", "simulated", cann=True, **{AUTOLOAD: "0"}))
    assert not found["real is active"] and found["before"] == [0, 2, 4, 6]
    assert found["import torch_npu"] and found["after"] == [0, 3, 6, 9]
