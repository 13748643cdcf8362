"""The tables of docs/parallel.md are those of the code."""

from __future__ import annotations

from docs import parallel


def test_the_tables_are_those_of_the_code():
    assert parallel.PAGE.read_text("utf-8") == parallel.page(), "run `python -m docs.parallel`"
