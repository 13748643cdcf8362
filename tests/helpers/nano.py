"""What nano is known to reach: the committed record of `python -m deskocr_kit.evaluation`."""

from __future__ import annotations

import json

from tests.helpers.paths import NANO

RECORDS = {record["make"]: record for record in json.loads((NANO / "evaluation.json").read_text())}


def bound(make: str, room: float) -> float:
    """The recorded CER of a make, plus `room` for few pages or another arithmetic."""
    return RECORDS[make]["cer"] + room
