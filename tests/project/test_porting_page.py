"""docs/porting.md is the page of the stored results, and these are of the models that the tests run."""

from __future__ import annotations

import json

from docs import porting
from tests.helpers.guest_models import models


def test_the_page_is_made_from_the_record():
    stored = json.loads(porting.STORED.read_text("utf-8"))
    assert porting.PAGE.read_text("utf-8") == porting.page(stored), "run `python -m docs.porting --page`"
    assert list(stored["models"]) == list(models()), "run `python -m docs.porting`"


def test_a_failed_step_is_in_the_table_and_named():
    stored = json.loads(porting.STORED.read_text("utf-8"))
    name, each = next(iter(stored["models"].items()))
    each["steps"]["ladder"] = [False, "module x"]
    page = porting.page(stored)
    assert f"* {name}, ladder: module x" in page and "**FAIL**" in page
    passed = sum(all(ok for ok, _ in m["steps"].values()) for m in stored["models"].values())
    assert f"{passed} of {len(stored['models'])} pass every step" in page
