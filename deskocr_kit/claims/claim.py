"""A claim as data, and the outcome of its test."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).with_name("claims.json")
HOLDS, FAILS, NEEDS = "holds", "fails", "needs a device"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a check.

    word: HOLDS, FAILS or NEEDS. evidence: the decisive figure or fact. device: where the check ran.
    """

    word: str
    evidence: str
    device: str = "no device: published software and this machine's CPU"


@dataclass(frozen=True)
class Claim:
    """One entry of claims.json; `facts` are its figures."""

    id: str
    claim: str
    tests: str
    facts: dict

    @property
    def command(self) -> str:
        """The command that repeats the check on a device."""
        weights = " --model deepseek-ocr" if self.facts.get("weights") else ""
        return f"python -m deskocr_kit.claims {shlex.quote(self.id)} --device npu{weights}"


def claims() -> list[Claim]:
    """All claims of claims.json."""
    entries = json.loads(DATA.read_text(encoding="utf-8"))["claims"]
    return [Claim(e.pop("id"), e.pop("claim"), e.pop("tests"), e) for e in map(dict, entries)]
