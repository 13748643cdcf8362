"""The real msProbe accepts our dumps, and its figures are ours.

pytest -m slow tests/compare/test_real_msprobe.py      (first run: downloads mindstudio-probe and a torch)
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch

from deskocr_kit.compare.msprobe import compare_dumps, write_dump
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from model.images import load_image
from tests.real_wheel.environment import CACHE, NoRegistry, pip

pytestmark = pytest.mark.slow  # it makes an environment with another package: some minutes and downloads
PACKAGES = ("mindstudio-probe==26.2.0", f"torch=={torch.__version__.partition('+')[0]}")
COLUMNS = (
    "Cosine",
    "EucDist",
    "MaxAbsErr",
    "MaxRelativeErr",
    "One Thousandth Err Ratio",
    "Five Thousandths Err Ratio",
)


@pytest.fixture(scope="module")
def msprobe():
    """The command, in an environment of its own under ~/.cache/deskocr-tests."""
    place = CACHE / f"msprobe-cp{sys.version_info[0]}{sys.version_info[1]}"
    stamp = place / "made-of.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        try:
            pip(place / "bin" / "python", "install", "--progress-bar=off", *PACKAGES)
        except NoRegistry as error:
            pytest.skip(f"no package registry can be reached: {error}")
        stamp.write_text("\n".join(PACKAGES))
    return place / "bin" / "msprobe"


def test_msprobe_compare_accepts_our_dumps_and_agrees(msprobe, tmp_path):
    reader = Reader.load("nano", "cpu", "fp32")
    inputs = reader.inputs(load_image(sample_pages()[0][0]))

    def run(model):
        return model(**inputs)

    write_dump(reader.model, run, tmp_path / "reference")
    with torch.no_grad():
        next(reader.model.model.layers[1].mlp.experts.parameters()).mul_(1.01)
    write_dump(reader.model, run, tmp_path / "candidate")

    words = [
        "compare",
        "-tp",
        tmp_path / "candidate" / "dump.json",
        "-gp",
        tmp_path / "reference" / "dump.json",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [msprobe, *words, "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (table,) = (tmp_path / "out").glob("compare_result_*.csv")
    with table.open(encoding="utf-8") as file:
        theirs = {row["NPU Name"]: row for row in csv.DictReader(file)}

    ours = compare_dumps(tmp_path / "candidate", tmp_path / "reference")
    assert len(ours) > 40 and any(row.largest for row in ours)
    for row in ours:
        figures = (row.cosine, row.euclid, row.largest, row.largest_relative, *row.within)
        found = [float(theirs[row.name][column]) for column in COLUMNS]
        assert found == pytest.approx(figures, rel=1e-5, abs=2e-6), row.name
