"""The figures about kernels in both READMEs are those of the count and of the records."""

from __future__ import annotations

import re

import pytest

from deskocr_kit.kernel_evidence.assembled import SHARED
from deskocr_kit.kernel_evidence.forms import GUARD, plan
from deskocr_kit.kernel_evidence.table import NOT_RUN, evidence, records
from deskocr_kit.operator_census.ocr_model import census_ocr, page_inputs
from model import DeepseekOCRConfig
from tests.helpers.paths import ROOT

READMES = pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])


def row(name: str, command: str) -> list[str]:
    """The cells of the first row of a README whose last cell begins with this command."""
    lines = (ROOT / name).read_text("utf-8").splitlines()
    line = next(line for line in lines if line.split("|")[-2:][0].strip().startswith(f"`{command}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def figures(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


@pytest.fixture(scope="module")
def launches() -> dict[str, tuple[int, int]]:
    """{plan: (launches of a page of 2x3 tiles with its prompt, of a decoded token)}, official size, fp16."""
    config = DeepseekOCRConfig()
    page = {**page_inputs(config, "gundam", (2, 3)), **GUARD}
    found = {"defaults": census_ocr(inputs=page), "kernels": census_ocr(inputs=page, plan=plan())}
    return {
        name: (each.launches("vision") + each.launches("prefill"), each.launches("decode"))
        for name, each in found.items()
    }


@READMES
def test_launches_before_and_after(launches, name):
    command = "pytest tests/kernel_evidence/test_readme.py"
    before, after = launches["defaults"], launches["kernels"]
    assert figures(row(name, command)[1]) == [before[0], after[0], before[1], after[1]]


@READMES
def test_the_table_of_levels(name):
    """How many kernels reached each level, and with which command that is repeated."""
    found, lowered = evidence(), records()["lowered"]
    of, forms = len(found), len(lowered["forms"])
    interpreted = sum(bool(each.errors) and not each.failed for each in found)
    accepted = sum(bool(each.forms) and not each.refused for each in found)
    assert figures(row(name, "TRITON_INTERPRET=1 pytest tests/kernels")[1]) == [interpreted, of]
    assert figures(row(name, "pytest -m slow tests/kernel_evidence")[1]) == [accepted, of, forms]
    assembled = sum(all(not form["refused"] for form in each.assembled) for each in found)
    cards = sorted(SHARED)
    said = row(name, "python -m deskocr_kit.kernel_evidence.assembled")
    assert figures(said[0]) == cards and figures(said[1]) == [assembled, of, forms]
    for command, levels in (  # `deskocr evidence add` writes both
        ("python -m tests.on_cuda", {each.compiled for each in found}),
        ("deskocr evidence --device npu", {each.run for each in found}),
    ):
        assert (row(name, command)[1] == NOT_RUN) == (levels == {NOT_RUN})
