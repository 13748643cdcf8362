"""docs/porting_faults.md shows the stored results, and these cover the faults and models of the battery."""

from __future__ import annotations

import json

from docs.porting_faults import DATA, PAGE, page
from tests.helpers.climb_battery import EVERY_MODULE
from tests.helpers.climb_faults import FAULTS, SOUND
from tests.helpers.climb_guests import GUESTS

STORED = json.loads(DATA.read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_stored_results():
    assert PAGE.read_text(encoding="utf-8") == page(STORED), "run: python -m docs.porting_faults --write"


def test_the_results_are_of_this_battery_and_all_right():
    outcomes = STORED["after"]["outcomes"]
    assert {o["guest"] for o in outcomes} == set(GUESTS) and len(GUESTS) >= 8
    assert {o["fault"] for o in outcomes} == {*SOUND, *FAULTS, EVERY_MODULE}
    assert {guest.family for guest in GUESTS.values()} == {
        "text", "mixture of experts", "vision-language", "encoder-decoder", "crnn",
    }  # fmt: skip
    assert [o for o in outcomes if o["named"] != "right"] == []
    before = STORED["before"]["outcomes"]
    assert sum(o["named"] != "right" for o in before) > 0, "the battery has teeth"
