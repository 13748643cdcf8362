"""Kernels inherit this environment, so that notebooks are quiet and repeat themselves under test."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
from pathlib import Path

from tests.helpers import forked_kernels

ROOT = Path(__file__).parent
for name, value in {
    "DESKOCR_DEVICE": "cpu",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}.items():
    os.environ.setdefault(name, value)
if os.environ["DESKOCR_DEVICE"].startswith(
    ("cpu", "npu-sim")
):  # a torch_npu that loads itself would be in the way
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
# With several processes the longest files start first, so that no process ends with one of them alone.
# A hint only: a file that is missing here runs later. The order is by CPU seconds in `make test`.
LONGEST = (
    "notebooks/03_conv2d.ipynb",
    "notebooks/12_scale_out.ipynb",
    "notebooks/13_evidence.ipynb",
    "tests/engines/test_batch.py",
    "tests/benchmark/test_bench.py",
    "tests/baselines/test_transformers_model.py",
    "tests/commands/test_batch.py",
    "tests/batch/test_kills.py",
    "tests/batch/test_workers.py",
    "tests/model/test_examination.py",
    "tests/reading/test_doubt.py",
    "tests/reading/test_hostile_pages.py",
    "notebooks/",
    "tests/kernels/test_decoding.py",
    "tests/kernels/test_launch.py",
    "tests/simulator/test_opcount.py",
    "tests/simulator/test_model.py",
)
QUICK = "00_quickstart.ipynb"  # the notebook of `make quick`
LEFT_OUT: list[str] = []


gc.disable()  # until the tests are collected: what that makes stays


def pytest_collection_finish():
    """No garbage collection visits the million objects of torch and the tests: it took 20 of 260 seconds."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure():
    gc.unfreeze()  # or libraries that count their objects at the end report these as leaks


def pytest_configure(config):
    """nbval opens the sanitizer file relative to the current folder; it lies here."""
    if getattr(config.option, "nbval_sanitize_with", None):
        config.option.nbval_sanitize_with = str(ROOT / config.option.nbval_sanitize_with)
        forked_kernels.install()


def pytest_ignore_collect(collection_path, config):
    """A notebook says in metadata.deskocr.needs what it needs; where that is absent it is not collected."""
    if collection_path.suffix != ".ipynb":
        return None
    needs = json.loads(collection_path.read_text("utf-8"))["metadata"].get("deskocr", {}).get("needs", [])
    have = {
        "npu": os.environ["DESKOCR_DEVICE"] == "npu",
        "weights": bool(os.environ.get("DESKOCR_MODEL")),
        "triton": has_triton(),
    }
    lacking = [need for need in needs if not have[need]]
    if lacking:
        LEFT_OUT.append(f"{collection_path.name} (needs {', '.join(lacking)})")
        return True
    return None


def has_triton() -> bool:
    """As deskocr_kit.course.notebooks.has_triton, which imports torch."""
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(map(int, found.split(".")[:2])) >= (3, 4)


def pytest_collection_modifyitems(config, items):
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        return  # in one process nothing is gained

    def place(item):
        name = item.path.relative_to(ROOT).as_posix() if item.path.is_relative_to(ROOT) else ""
        return next((i for i, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=place)  # stable: the tests of a file stay together and in order


def pytest_itemcollected(item):
    if item.path.name == QUICK:
        item.add_marker("quick")


def pytest_terminal_summary(terminalreporter):
    if LEFT_OUT:  # so that it cannot vanish silently
        terminalreporter.write_line("notebooks left out here: " + ", ".join(LEFT_OUT))
