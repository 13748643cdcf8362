"""`python -m tests.on_cuda` with interpreted kernels and a tiny model: the path of a card, to its end."""

from __future__ import annotations

import json

import pytest
import torch

from tests.on_cuda.__main__ import main
from tests.on_cuda.budget import Deadline
from tests.on_cuda.kernel_checks import check_kernels, plan_of_checks
from tests.on_cuda.subject import tiny

CPU = torch.device("cpu")


def test_kernels_are_checked_until_the_time_is_over():
    """A few hard calls in one dtype; a budget of zero is a check that fails; no time, no call."""
    checks = [each for each in plan_of_checks(None, tiny(CPU).config) if each[0].slot in ("swiglu", "choose")]
    checks = [each for each in checks if each[1] == torch.float16]
    *rows, last = check_kernels(checks, CPU, Deadline(60))
    assert {row["slot"] for row in rows} == {"swiglu", "choose"} and all(row["holds"] for row in rows)
    assert last == {"calls tried": len(checks), "of": len(checks)} and len(checks) >= 3
    assert "swiglu_kernel" in rows[0]["kernels"] + rows[1]["kernels"]
    assert check_kernels(checks, CPU, Deadline(-1)) == [{"calls tried": 0, "of": len(checks)}]


@pytest.mark.slow  # minutes in the interpreter
def test_the_whole_command_with_kernels(tmp_path, capsys):
    pytest.importorskip("transformers.models.unlimited_ocr")
    out = tmp_path / "result.json"
    assert main(["--size", "tiny", "--device", "cpu", "--out", str(out)]) == 0, capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["kernels"] == "interpreted" and result["complete"] and len(result["parts"]) == 5
    assert {part["state"] for part in result["parts"]} <= {"done", "dropped"}  # a busy machine takes too long
    rows = {row["form"]: row for row in result["parts"][1]["rows"]}
    for form in ("kernels", "kernels with a graph", "plain with a graph", "transformers, eager"):
        assert rows[form]["ttft"] > 0 and not rows[form].get("why"), rows[form]
