"""The accuracy of nano, from the committed record of `python -m deskocr_kit.evaluation`."""

from __future__ import annotations

import json

from tests.helpers.paths import NANO

RECORDS = {record["make"]: record for record in json.loads((NANO / "evaluation.json").read_text())}


def bound(make: str, room: float) -> float:
    """The recorded CER of a kind of page plus `room`, for a small sample or other arithmetic."""
    return RECORDS[make]["cer"] + room
