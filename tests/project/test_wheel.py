"""The built wheel outside this checkout: it contains every data file and runs `deskocr demo` anywhere."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow
TRACKED_DATA = (".json", ".tsv", ".j2", ".txt", ".png", ".safetensors", ".jsonl", "py.typed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: no build folder stays here, and none of an earlier build is packed."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (work / name).write_bytes((ROOT / name).read_bytes())
    for path in tracked():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_bytes((ROOT / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."]
    subprocess.run(command, cwd=work, check=True)
    (built,) = (work / "dist").glob("*.whl")
    return built


def tracked() -> list[str]:
    """The files of the two packages that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "model", "deskocr_kit"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return listed.stdout.split("\n")[:-1]


def test_everything_but_the_pages_for_readers_is_packed(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {path for path in tracked() if path.endswith((*TRACKED_DATA, ".py"))}
    assert expected - packed == set()
    assert not [name for name in packed if name.startswith(("tests/", "docs/", "notebooks/"))]


def test_demo_runs_from_any_folder(wheel, tmp_path):
    """Run in a new environment with the wheel and the dependencies of this one, not its editable install."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
    )
    # A .pth file adds the folder without running the .pth files in it, such as that of the editable install.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    home = subprocess.run(
        [python, "-c", "import deskocr_kit, model; print(deskocr_kit.__file__, model.__file__)"],
        cwd=elsewhere, env=environment, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert all(Path(path).is_relative_to(packages) for path in home), home
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "deskocr", "demo", "--out", "out"],
        cwd=elsewhere, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((elsewhere / "out").rglob("text.txt")) and list((elsewhere / "out").rglob("result.json"))
