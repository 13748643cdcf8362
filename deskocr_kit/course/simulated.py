"""Runs instruments on the simulated NPU in a new process, because this process may use a real NPU.

    report = prove_on_simulator("as-believed", ["conv2d"], ["fp16"])
    refused = missing_on_simulator("as-believed")        # {operator: number of calls} for one page

The first line does the same as the command
`deskocr prove --device npu-sim:as-believed --slots conv2d --dtype fp16`.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.processing import load_image

from ..device import pick_device
from ..operators.prove.proof import prove
from ..reading.reader import Reader
from ..reading.sample_pages import sample_pages
from ..simulator.subprocess import run_in_subprocess
from .port_report import missing


def prove_on_simulator(profile: str, slots: Sequence[str], dtypes: Sequence[str]):
    """The Report of `prove` at nano's sizes. Raises RuntimeError with the end of the new process's error."""
    return run_in_subprocess(_prove, profile, list(slots), list(dtypes))


def missing_on_simulator(profile: str) -> dict[str, int]:
    """{operator: number of calls} that the profile refuses while nano reads a page.

    Raises RuntimeError with the end of the new process's error.
    """
    return run_in_subprocess(_missing, profile)


def _prove(profile: str, slots: list[str], dtypes: list[str]):
    return prove(f"npu-sim:{profile}", dtypes, "nano", slots, repeats=1)


def _missing(profile: str) -> dict[str, int]:
    reader = Reader.load("nano", pick_device(f"npu-sim:{profile}", quiet=True), "fp32")
    page = load_image(sample_pages()[0][0])
    return missing(lambda model: reader.read(page, "free", max_new_tokens=1), reader.model)
