"""A healthy 910B3 machine as captured files, and a function to change single files."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.paths import ASCEND

SET_ENV = (
    "ASCEND_HOME_PATH={home}\nASCEND_TOOLKIT_HOME={home}\nASCEND_OPP_PATH={home}/opp\n"
    "LD_LIBRARY_PATH={home}/lib64\nPYTHONPATH={home}/python/site-packages\n"
)
GOOD = {
    "npu-smi.txt": "npu-smi/910B3x8_v25.2.0_one_process.txt",
    "ascend_toolkit_install.info": "cann/ascend_toolkit_install.info_8.3.RC1",
    "driver_version.info": "cann/driver_version.info_25.3.rc1",
    "firmware_version.info": "cann/firmware_version.info_7.7.0.1.231",
    "env.txt": SET_ENV.format(home="/usr/local/Ascend/ascend-toolkit/latest"),
    "pip-list.txt": "torch==2.6.0\ntorch-npu==2.6.0.post3\ntransformers==4.51.3\nnumpy==1.26.4\n",
}
LAPTOP = "torch==2.13.0\ntransformers==5.23.0\nnumpy==2.4.6\n"


PIP_LINES = "torch=={torch}\ntorch-npu=={torch_npu}\ntransformers==4.51.3\nnumpy=={numpy}\n"
OLD_310 = "npu-smi/gpustack_ai-server_atlas-800-inference-server_model-3000_version-1.0.0-1.0.10.txt"


def pip(torch: str = "2.6.0", torch_npu: str = "2.6.0.post3", numpy: str = "1.26.4") -> str:
    return PIP_LINES.format(torch=torch, torch_npu=torch_npu, numpy=numpy)


def folders(tmp_path: Path):
    """A function from {file name: sample or text} to a folder; it changes GOOD, and None removes a file."""

    def make(base: dict = GOOD, **changes) -> Path:
        files = {
            **base,
            **{name.replace("__", ".").replace("_D_", "-"): text for name, text in changes.items()},
        }
        target = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
        target.mkdir()
        for name, text in files.items():
            if text is not None:
                sample = ASCEND / text if len(text) < 200 and "\n" not in text else None
                content = sample.read_text(encoding="utf-8") if sample and sample.is_file() else text
                (target / name).write_text(content, encoding="utf-8")
        return target

    return make
