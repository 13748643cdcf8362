"""The kernels as machine code for CUDA cards: the stored record, and the compiler that made it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from deskocr_kit.kernel_evidence.assembled import SHARED, Assembled
from deskocr_kit.kernel_evidence.table import Evidence, records
from tests.helpers.paths import ROOT

ASSEMBLE = """
import json, sys
from dataclasses import asdict
from deskocr_kit.kernel_evidence.assembled import assemble
from deskocr_kit.kernel_evidence.forms import Form
from deskocr_kit.operators.kernels.elementwise import gelu_kernel
types, constants = {"x": "*fp16", "out": "*fp16", "numbers": "i32"}, json.loads(sys.argv[1])
forms = [Form(gelu_kernel, types, constants), Form(gelu_kernel, types, {**constants, "BLOCK": 3})]
print(json.dumps([asdict(assemble(form, 90)) for form in forms]))
"""


x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the compiler for CUDA is tested on x86-64")


def key(form: dict) -> tuple:
    return form["kernel"], form["dtype"], json.dumps(form["constants"], sort_keys=True)


def test_every_form_that_was_lowered_was_assembled_for_every_card():
    stored = records()
    lowered = sorted(key(form) for form in stored["lowered"]["forms"])
    for capability in SHARED:
        forms = [form for form in stored["assembled"]["forms"] if form["capability"] == capability]
        assert sorted(map(key, forms)) == lowered


def test_every_form_fits_its_card_and_few_numbers_leave_the_registers():
    """A kernel whose numbers live on the stack is slow."""
    for each in records()["assembled"]["forms"]:
        form = Assembled(**each)
        assert form.fits, form
        assert 0 < form.registers <= 255
        assert form.stack_bytes <= (1024 if form.dtype == "fp32" else 128), form


def test_a_refused_form_is_said():
    good = {"capability": 90, "shared_bytes": 1025, "stack_bytes": 8, "refused": ""}
    made = [good, {**good, "capability": 80, "shared_bytes": 0}]

    def words(*forms) -> str:
        return Evidence("k", (), {}, (), 1, "aiv", 0, 1, (), assembled=forms).machine_code()

    assert words(*made) == "sm_80 sm_90, 2 KiB, stack 8" and words() == "no form"
    assert words(*made, {**good, "refused": "E: too large"}) == "refused: E: too large"
    assert not Assembled("k", "fp16", {}, 90, SHARED[90] + 1, 9, 0).fits


def triton_version() -> str:
    return pytest.importorskip("triton", "3.4", reason="needs Triton 3.4 or newer").__version__


def in_a_new_process(tmp_path, *arguments: str) -> str:
    """Standard output of a Python that does not interpret kernels and finds nothing compiled."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@x86
def test_the_compiler_takes_a_form_and_refuses_one(tmp_path):
    version, stored = triton_version(), records()["assembled"]
    one = next(
        each for each in stored["forms"] if each["kernel"] == "gelu_kernel" and each["dtype"] == "fp16"
    )
    good, bad = json.loads(in_a_new_process(tmp_path, "-c", ASSEMBLE, json.dumps(one["constants"])))
    assert "power of 2" in bad["refused"] and not good["refused"] and good["registers"]
    if stored["compiler"] == f"triton {version}":
        assert good in stored["forms"]


@pytest.mark.slow  # two minutes: 144 forms for two cards
@x86
def test_the_record_is_what_the_compiler_makes(tmp_path):
    if records()["assembled"]["compiler"] != f"triton {triton_version()}":
        pytest.skip("the record is of another version of Triton")
    in_a_new_process(tmp_path, "-m", "deskocr_kit.kernel_evidence.assembled", str(tmp_path / "made.json"))
    assert json.loads((tmp_path / "made.json").read_text()) == records()["assembled"]
