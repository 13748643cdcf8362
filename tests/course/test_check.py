"""`check` raises for a false claim, and shows both values."""

from __future__ import annotations

import pytest
import torch

from deskocr_kit.course.check import VerdictTable, check, check_below, check_close, check_equal


def test_true_claims_give_a_line_with_contract_left_and_measurement_right():
    verdict = check_below("cer", 0.013, 0.05, "6 pages", "")
    assert repr(verdict).startswith("PASS  cer") and repr(verdict).endswith("6 pages at most 0.05  ≈ 0.013")
    assert "PASS" in verdict._repr_html_()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: check("named", False, "shown", "measured"), "FAIL  named: shown; measured"),
        (lambda: check_equal("tokens", [1, 2], [1, 3]), r"ours +\[1, 2\]\n +expected +\[1, 3\]"),
        (lambda: check_below("error", 2.0, 1.0), "2 exceeds 1"),
        (lambda: check_below("error", float("nan"), 1.0), "nan exceeds 1"),
        (lambda: check_close("t", torch.ones(2), torch.ones(3), 1.0), r"shape \(2,\), expected \(3,\)"),
        (
            lambda: check_close("t", torch.tensor([[1.0, 9.0]]), torch.tensor([[1.0, 2.0]]), 1e-5),
            r"(?s)9 at \[0, 1\].*2\n.*largest difference 7",
        ),
        (lambda: check_close("t", torch.tensor([float("nan")]), torch.ones(1), 1e9), "relative error inf"),
    ],
)
def test_false_claims_raise_and_show_both_sides(call, word):
    with pytest.raises(AssertionError, match=word):
        call()


def test_close_tensors_pass_and_say_how_close():
    verdict = check_close("norm", torch.ones(2, 3) * (1 + 1e-7), torch.ones(2, 3), 1e-5)
    assert verdict.shown == "(2, 3)" and "of 1e-05 on cpu" in verdict.measured


def test_html_is_escaped():
    from deskocr_kit.course.check import Verdict

    for html in (
        Verdict("<b>", "<i>", "<u>")._repr_html_(),
        VerdictTable([Verdict("<b>", "<i>")])._repr_html_(),
    ):
        assert "<b>" not in html.replace('<b style="color:#1a7f37">', "").replace("<b>PASS</b>", "")
        assert "<i>" not in html and "&lt;b&gt;" in html
