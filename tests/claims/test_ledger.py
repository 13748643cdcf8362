"""The claims ledger: the outcomes come from the checks, not from the data."""

from __future__ import annotations

import dataclasses
import json

import pytest

from deskocr_kit.claims import checks
from deskocr_kit.claims.claim import DATA, FAILS, HOLDS, NEEDS, claims
from deskocr_kit.claims.ledger import Ledger, Row, run, write


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return run([c.id for c in claims() if c.id != "fp16"])


def outcome(ledger, claim_id):
    return next(r.outcome for r in ledger if r.claim.id == claim_id)


def test_every_claim_has_a_check_and_every_check_a_claim():
    assert {c.id for c in claims()} == set(checks.CHECKS)


def test_no_outcome_is_stored():
    text = DATA.read_text(encoding="utf-8")
    for entry in json.loads(text)["claims"]:
        assert not {"outcome", "evidence", "result", "verdict"} & set(entry)


@pytest.mark.parametrize(
    "claim_id, word, evidence",
    [
        ("conv2d-missing", FAILS, "a kernel"),
        ("conv2d-substitute", HOLDS, "relative error"),
        ("unfold-as-printed", FAILS, "dilation should be greater than zero"),
        (
            "six-convolutions",
            FAILS,
            "5 layers run; the checkpoint has 6; a page never uses "
            "model.vision_model.embeddings.patch_embedding.weight",
        ),
        ("masked-scatter-missing", FAILS, "a kernel (AI CPU"),
        ("cann-8.4", NEEDS, "released as 8.4: nothing; later: 8.5.0"),
        ("fallback-cost", NEEDS, "1 call in the"),
        ("version-pair", FAILS, "2.6.0.post3"),
        ("ten-billion", FAILS, "3,336,106,240"),
        ("weight-size", HOLDS, "6.21 GiB"),
        ("architecture", FAILS, "CLIP 303 M"),
        ("load-time", NEEDS, "official weights"),
        ("speed", NEEDS, "official weights"),
        ("success", NEEDS, "47%"),
    ],
)
def test_outcomes(ledger, claim_id, word, evidence):
    found = outcome(ledger, claim_id)
    assert found.word == word and evidence in found.evidence, found


def test_outcomes_follow_the_facts(monkeypatch):
    """Other figures in the claim, or another setting, change the outcome."""
    here = checks.Setting.on("cpu", None)
    assert checks.ten_billion({"figure": 3.3e9}, here).word == HOLDS
    assert checks.six_convolutions({"figure": 5}, here).word == HOLDS
    assert checks.version_pair({"torch_npu": "2.6.0.post3", "cann": "8.3.RC1"}, here).word == HOLDS
    assert checks.cann_84({"release": "8.5"}, here).word == NEEDS
    assert checks.cann_84({"release": "99.0"}, here).word == FAILS
    monkeypatch.setattr(checks, "kernels", lambda operator: {"2.6.0": False})
    assert checks.conv2d_missing({}, here).word == HOLDS


def test_written(ledger, tmp_path):
    path = write(ledger, tmp_path / "reports" / "claims.md", "python -m deskocr_kit.claims")
    text = path.read_text(encoding="utf-8")
    assert text.count("\n| ") == len(ledger) + 1
    for row in ledger:
        assert row.claim.claim in text and f"claims {row.claim.id} --device npu" in text
    assert f"{sum(r.outcome.word == FAILS for r in ledger)} fail" in text


def test_shown_escaped(ledger):
    odd = dataclasses.replace(ledger[0].claim, claim="<script>")
    html = Ledger([Row(odd, ledger[0].outcome)])._repr_html_()
    assert "<script>" not in html and "✘ fails" in html
    assert "fails" in repr(ledger)


def test_unknown_claim():
    with pytest.raises(ValueError, match="unknown claim nothing"):
        run(["nothing"])


@pytest.mark.slow
def test_fp16_reads_a_page():
    (row,) = run(["fp16"])
    assert row.outcome.word == NEEDS and "65504" in row.outcome.evidence
